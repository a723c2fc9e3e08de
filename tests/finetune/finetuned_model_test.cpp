// The folder of a fine-tuned model: saved, read back, used as any run's, and refused when its parts do not belong together.
#include "lib/finetune/finetuned_model.h"

#include <filesystem>
#include <fstream>

#include <ATen/ops/equal.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "lib/config/config.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "tests/support/expect_error.h"
#include "tests/support/memory_corpus.h"
#include "tests/support/temp_dir.h"

namespace scrna::finetune {
namespace {

namespace fs = std::filesystem;

class FinetunedModelTest : public testing::Test {
 protected:
  void SetUp() override {
    train::TrainConfig config;
    config.tokenizer.max_tokens = 16;
    config.model = {.num_layers = 1, .width = 16, .num_heads = 2, .feed_forward_width = 32};
    base_.config = config;
    base_.config_text = config::dump(config);
    base_.vocabulary_sha256 = base_.vocabulary.hash();
    encoder_ = std::make_unique<model::Encoder>(config.model, base_.vocabulary.size(), 16, 42, at::kCPU);
    write_file_atomically(folder_ / "config.yaml", base_.config_text);
    base_.vocabulary.save(folder_ / "vocabulary.tsv");
    classifier_ = {.label = "cell_type",
                   .classes = {"T \"x\"", "B, é"},
                   .head = {at::randn({16}), at::rand({16}).add_(0.1), at::randn({2, 16}), at::randn({2})},
                   .base = "runs/first",
                   .base_weights_sha256 = "abc",
                   .base_step = 500,
                   .settings = "label: cell_type\n",
                   .program = "0.1.0"};
  }
  void save(int64_t step) {
    save_encoder(folder_.path(), *encoder_, base_, step, classifier_);
    save_classifier(folder_.path(), classifier_);
  }
  [[nodiscard]] std::string refusal() const {
    return test::message_of<CheckpointError>([&] { load_finetuned(folder_.path()); });
  }

  test::TempDir folder_;
  train::TrainedModel base_{.vocabulary = data::build_vocabulary(test::corpus_sources({40}), 1)};
  std::unique_ptr<model::Encoder> encoder_;
  Classifier classifier_;
};

TEST_F(FinetunedModelTest, ComesBackAsItWasSaved) {
  save(507);
  for (const fs::path& path : {folder_.path(), folder_ / "checkpoints", folder_ / "checkpoints/step-00000507"}) {
    const FinetunedModel model = load_finetuned(path);
    EXPECT_EQ(model.classifier.classes, classifier_.classes);
    EXPECT_EQ(model.classifier.label, "cell_type");
    EXPECT_EQ(model.classifier.base_step, 500);
    EXPECT_EQ(model.classifier.settings, classifier_.settings);
    EXPECT_TRUE(at::equal(model.classifier.head.mean, classifier_.head.mean));
    EXPECT_TRUE(at::equal(model.classifier.head.deviation, classifier_.head.deviation));
    EXPECT_TRUE(at::equal(model.classifier.head.weight, classifier_.head.weight));
    EXPECT_TRUE(at::equal(model.classifier.head.bias, classifier_.head.bias));
    EXPECT_EQ(model.encoder->step, 507);
    EXPECT_EQ(model.encoder->weights_sha256, model.classifier.encoder_sha256);
    const auto again = train::make_encoder(*model.encoder, model.encoder->config, at::kCPU, at::kFloat);
    EXPECT_TRUE(at::equal(again->parameters().values(), encoder_->parameters().values()));
  }
  // What every other command does with it.
  EXPECT_EQ(train::load_trained_model(folder_.path()).step, 507);
}

TEST_F(FinetunedModelTest, AKillBetweenTheTwoFilesLeavesTheEpochBefore) {
  save(507);
  Classifier next = classifier_;
  encoder_->parameters().values().add_(0.5);
  save_encoder(folder_.path(), *encoder_, base_, 514, next);  // and no save_classifier()
  const FinetunedModel model = load_finetuned(folder_.path());
  EXPECT_EQ(model.encoder->step, 507);
  EXPECT_EQ(train::load_trained_model(folder_.path()).step, 514);
  EXPECT_CONTAINS(test::message_of<CheckpointError>([&] { load_finetuned(folder_ / "checkpoints/step-00000514/"); }),
                  "belongs to step-00000507");
}

TEST_F(FinetunedModelTest, WhatDoesNotBelongTogetherIsRefused) {
  EXPECT_CONTAINS(refusal(), "has no classification head");
  EXPECT_CONTAINS(refusal(), "scrna-train finetune --checkpoint");
  EXPECT_CONTAINS(test::message_of<ConfigError>([&] { load_finetuned(folder_ / "none"); }), "there is nothing");
  EXPECT_CONTAINS(test::message_of<CheckpointError>([&] { load_finetuned(folder_ / "config.yaml"); }), "is a file");
  save(507);
  const Classifier good = classifier_;
  encoder_->parameters().values().add_(0.5);
  save_encoder(folder_.path(), *encoder_, base_, 507, classifier_);
  EXPECT_CONTAINS(refusal(), "other weights");
  classifier_.checkpoint = "../step-00000507";
  save_classifier(folder_.path(), classifier_);
  EXPECT_CONTAINS(refusal(), "expected step-NNNNNNNN");
  const auto refused = [&](const auto& damage) {
    Classifier bad = good;
    bad.encoder_sha256 = train::load_trained_model(folder_.path()).weights_sha256;
    damage(bad);
    save_classifier(folder_.path(), bad);
    return refusal();
  };
  EXPECT_EQ(test::message_of<CheckpointError>([&] { refused([](Classifier&) {}); }), "nothing was thrown");
  EXPECT_CONTAINS(refused([](Classifier& bad) { bad.head.weight = at::randn({3, 16}); }), "'classifier.weight'");
  EXPECT_CONTAINS(refused([](Classifier& bad) { bad.head.mean = at::randn({8}); }), "'classifier.input_mean'");
  EXPECT_CONTAINS(refused([](Classifier& bad) { bad.head.bias = at::randn({2}).div(0.0); }), "'classifier.bias'");
  EXPECT_CONTAINS(refused([](Classifier& bad) { bad.head.deviation = at::rand({16}).neg(); }), "not above 0");
  EXPECT_CONTAINS(refused([](Classifier& bad) { bad.classes = {"one"}; }), "at least two names");
  std::ofstream(folder_ / "classifier.safetensors") << "damaged";
  EXPECT_CONTAINS(refusal(), "classifier.safetensors");
}

}  // namespace
}  // namespace scrna::finetune
