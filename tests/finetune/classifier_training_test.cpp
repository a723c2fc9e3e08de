// Training a classifier on cells whose class is known to be learnable: frozen and full, on the CPU and on a GPU. Held-out
// cells tell; the class is in the genes for one task, and for the other in their order alone, which an untrained encoder
// hardly shows and full training must find.
#include "lib/finetune/classifier_training.h"

#include <algorithm>
#include <numeric>

#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/random.h"
#include "tests/support/expect_error.h"
#include "tests/support/test_device.h"
#include "tests/support/tolerance.h"

namespace scrna::finetune {
namespace {

constexpr int64_t kVocabulary = 64, kMaxTokens = 24;
constexpr int32_t kFirstGene = 4, kGenes = 60;

train::Embedder make_embedder(at::Device device) {
  const model::ModelConfig config{.num_layers = 2,
                                  .width = 128,
                                  .num_heads = 2,  // head width 64, which every kernel has
                                  .feed_forward_width = 128,
                                  .dropout = 0.05,
                                  .initializer_range = 0.08};
  const at::ScalarType type = device.is_cuda() ? at::kBFloat16 : at::kFloat;
  train::Embedder embedder;
  embedder.encoder = std::make_unique<model::Encoder>(config, kVocabulary, kMaxTokens, 42, device, type);
  embedder.options = {.num_blocks = config.num_layers, .tokens_per_pack = 512};
  return embedder;
}

/// Class 0 (a quarter of the cells) has more of the first half of the genes, class 1 of the second.
std::vector<int32_t> by_genes(int32_t label, const RandomStream& random) {
  std::vector<int32_t> tokens;
  for (uint64_t draw = 0; std::ssize(tokens) < 12; draw += 2) {
    const bool is_own = random.uniform(draw) < 0.75;
    const int32_t half = (label == 0) == is_own ? 0 : kGenes / 2;
    const auto token = kFirstGene + half + static_cast<int32_t>(random.below(kGenes / 2, draw + 1));
    if (std::ranges::find(tokens, token) == tokens.end()) tokens.push_back(token);
  }
  return tokens;
}

/// The same with so few genes that cells often look like the other class.
std::vector<int32_t> by_few_genes(int32_t label, const RandomStream& random) {
  std::vector<int32_t> tokens = by_genes(label, random);
  tokens.resize(4);
  return tokens;
}

/// Every cell has genes 0 and 1 and others at random; class 0: gene 0 stands in the first half, gene 1 in the second.
std::vector<int32_t> by_order(int32_t label, const RandomStream& random) {
  std::vector<int32_t> tokens;
  for (uint64_t draw = 0; std::ssize(tokens) < 10; ++draw) {
    const auto token = kFirstGene + 2 + static_cast<int32_t>(random.below(kGenes - 2, draw));
    if (std::ranges::find(tokens, token) == tokens.end()) tokens.push_back(token);
  }
  const auto place = [&](uint64_t index) { return static_cast<std::ptrdiff_t>(random.below(5, 1000 + index)); };
  tokens.insert(tokens.begin() + 5 + place(0), kFirstGene + (label == 0 ? 1 : 0));
  tokens.insert(tokens.begin() + place(1), kFirstGene + (label == 0 ? 0 : 1));
  return tokens;
}

template <class Tokens>
LabelledCells make_cells(int64_t count, Tokens tokens_of, int64_t period) {
  LabelledCells cells;
  cells.classes = {"a", "b"};
  for (int64_t i = 0; i < count; ++i) {
    const int32_t label = i % period == 0 ? 0 : 1;
    const std::vector<int32_t> tokens = tokens_of(label, RandomStream(9, RandomPurpose::kSynthesize, static_cast<uint64_t>(i)));
    cells.tokens.tokens.insert(cells.tokens.tokens.end(), tokens.begin(), tokens.end());
    cells.tokens.begin.push_back(std::ssize(cells.tokens.tokens));
    cells.cells.push_back({.row = i, .label = label, .id = mix64(static_cast<uint64_t>(i))});
  }
  return cells;
}

struct Trained {
  std::vector<Epoch> epochs;
  HeadWeights head;
  bool is_whole = false;
  [[nodiscard]] const Epoch& best() const {
    return *std::find_if(epochs.rbegin(), epochs.rend(), [](const Epoch& epoch) { return epoch.is_best; });
  }
};

Trained train(train::Embedder& embedder, LabelledCells& cells, const FinetuneConfig& given, int64_t most_steps = 1 << 30) {
  const FinetuneConfig config = resolved(given, embedder.encoder->device().is_cuda());
  const Split split = split_cells(cells, {}, config);
  ClassifierTraining training(embedder, cells, split, config);
  Trained result;
  result.is_whole = training.run({.keep_going = [&](int64_t steps, int64_t) { return steps < most_steps; },
                                  .keep_embedding = [](int64_t, int64_t) { return true; },
                                  .on_epoch = [&](const Epoch& epoch) { result.epochs.push_back(epoch); }});
  result.head = training.head().weights();
  return result;
}

class ClassifierTrainingTest : public test::OnDevice {};

TEST_F(ClassifierTrainingTest, AFrozenEncoderStaysAndItsHeadLearns) {
  train::Embedder embedder = make_embedder(device());
  LabelledCells cells = make_cells(1200, by_genes, 4);
  const at::Tensor before = embedder.encoder->parameters().values().clone();
  const Trained result = train(embedder, cells, {.label = "type", .frozen = true, .training = {.epochs = 200}});
  EXPECT_TRUE(at::equal(embedder.encoder->parameters().values(), before));
  EXPECT_DOUBLE_EQ(result.best().report.majority_accuracy, 0.75);
  EXPECT_GE(result.best().report.accuracy, 0.9);
  EXPECT_GE(result.best().report.macro_f1, 0.85);  // saying class 1 of all: 0.43
  EXPECT_LT(result.epochs.back().training_loss, result.epochs.front().training_loss);
}

TEST_F(ClassifierTrainingTest, FullTrainingLearnsWhatTheFrozenEncoderDoesNotShow) {
  LabelledCells cells = make_cells(1200, by_order, 2);
  train::Embedder frozen = make_embedder(device()), full = make_embedder(device());
  const Trained weak = train(frozen, cells, {.label = "type", .frozen = true, .training = {.epochs = 60}});
  const at::Tensor before = full.encoder->parameters().values().clone();
  const Trained strong = train(full, cells, {.label = "type", .training = {.epochs = 12, .learning_rate = 1e-3}});
  EXPECT_LE(weak.best().report.accuracy, 0.75);
  EXPECT_GE(strong.best().report.accuracy, 0.9);
  EXPECT_GE(strong.best().report.macro_f1, 0.9);
  // Every parameter but the output head for genes has moved, and that one not at all.
  const ops::ParameterSet& parameters = full.encoder->parameters();
  for (std::size_t i = 0; i < parameters.all().size(); ++i) {
    const bool is_output = parameters.all()[i].name.starts_with("head.output");
    EXPECT_EQ(at::equal(parameters.slice(before, i), parameters.slice(parameters.values(), i)), is_output)
        << parameters.all()[i].name;
  }
}

TEST_F(ClassifierTrainingTest, TheSameSeedGivesTheSameCurveAndPacksDoNotMatter) {
  std::vector<Trained> runs;
  for (const int64_t tokens_per_pack : {512, 512, 40}) {
    train::Embedder embedder = make_embedder(device());
    embedder.options.tokens_per_pack = tokens_per_pack;
    LabelledCells cells = make_cells(160, by_genes, 3);
    runs.push_back(train(embedder, cells,
                         {.label = "type",
                          .training = {.epochs = 2, .tokens_per_pack = tokens_per_pack}}));
  }
  if (!test::kOnCuda) {  // attention's gradients on a GPU are summed in no fixed order
    EXPECT_TRUE(at::equal(runs[0].best().probabilities, runs[1].best().probabilities));
    EXPECT_EQ(runs[0].epochs[1].training_loss, runs[1].epochs[1].training_loss);
    EXPECT_TRUE(at::equal(runs[0].head.weight, runs[1].head.weight));
  }
  const double tolerance = test::kOnCuda ? test::kFinetunedProbabilityBf16 : test::kFinetunedProbability;
  EXPECT_TRUE(at::allclose(runs[0].epochs[1].probabilities, runs[2].epochs[1].probabilities, 0, tolerance))
      << runs[0].epochs[1].probabilities.sub(runs[2].epochs[1].probabilities).abs().max().item<float>();
}

TEST_F(ClassifierTrainingTest, EndsEarlyWhenNothingGetsBetterAndStopsWhenAsked) {
  train::Embedder embedder = make_embedder(device());
  LabelledCells cells = make_cells(160, by_genes, 3);
  const Trained early = train(embedder, cells,
                              {.label = "type", .frozen = true,
                               .training = {.epochs = 500, .patience = 2, .head_learning_rate = 0.5}});
  EXPECT_TRUE(early.is_whole);
  EXPECT_LT(early.epochs.size(), 500);
  EXPECT_EQ(early.epochs.back().epoch, early.best().epoch + 2);
  for (const Epoch& epoch : early.epochs) EXPECT_LE(epoch.report.macro_f1, early.best().report.macro_f1);

  const Trained stopped = train(embedder, cells, {.label = "type", .frozen = true, .training = {.batch_cells = 64}}, 5);
  EXPECT_FALSE(stopped.is_whole);
  EXPECT_EQ(stopped.epochs.size(), 2);  // of two steps each
}

TEST_F(ClassifierTrainingTest, BalancedWeightsRaiseTheRecallOfARareClass) {
  const auto recall = [](ClassWeights weights) {
    train::Embedder embedder = make_embedder(device());
    LabelledCells cells = make_cells(1800, by_few_genes, 15);
    const Trained result = train(embedder, cells,
                                 {.label = "type", .frozen = true,
                                  .training = {.epochs = 4, .class_weights = weights, .heldout_fraction = 0.5}});
    return result.epochs.back().report.classes[0].recall;
  };
  EXPECT_GT(recall(ClassWeights::kBalanced), recall(ClassWeights::kNone) + 0.1);  // of 60 held-out cells
}

TEST_F(ClassifierTrainingTest, ALossThatIsNotFiniteEndsTheRun) {
  train::Embedder embedder = make_embedder(device());
  LabelledCells cells = make_cells(160, by_genes, 3);
  const std::string message = test::message_of<NumericError>([&] {
    train(embedder, cells, {.label = "type", .training = {.epochs = 20, .learning_rate = 1e30, .clip_norm = 0}});
  });
  EXPECT_CONTAINS(message, "not finite");
}

}  // namespace
}  // namespace scrna::finetune
