// scrna-train bench train: text, JSON and refusals, on tiny models.
#include <algorithm>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "lib/core/files.h"
#include "tests/apps/scrna_train.h"
#include "tests/support/temp_dir.h"

namespace scrna {
namespace {

using test::contains;
using test::expect_failure;
using test::scrna_train;

constexpr const char* kTiny =
    "model: {num_layers: 2, width: 32, num_heads: 2, feed_forward_width: 64}\n"
    "optim: {warmup_steps: 0}\n";

class BenchTrain : public testing::Test {
 protected:
  void SetUp() override { write_file_atomically(config_, kTiny); }
  [[nodiscard]] std::vector<std::string> tiny(std::vector<std::string> more = {}) const {
    std::vector<std::string> words{"bench",        "train", "--config", config_.string(),
                                   "--device",     "cpu",   "--cells",  "3",
                                   "--vocabulary", "50",    "--steps",  "3"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  [[nodiscard]] nlohmann::json measured(std::vector<std::string> more) const {
    const std::filesystem::path file = folder_ / "train.json";
    more.insert(more.end(), {"--json", file.string()});
    const auto result = scrna_train(tiny(std::move(more)));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return nlohmann::json::parse(read_file(file));
  }

  test::TempDir folder_;
  std::filesystem::path config_ = folder_ / "tiny.yaml";
};

bool has_gpu() { return contains(scrna_train({"--version"}).out, "GPU 0"); }

TEST_F(BenchTrain, TheTextSaysWhatWasMeasuredOnWhatAndWhatIsMissing) {
  const auto result = scrna_train(tiny({"--context", "48"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* part :
       {"2 layers x 32, 2 heads, 50 tokens in the vocabulary", "3 cells (cellxgene lengths, longest 48)",
        "144 tokens", " ms (median of 3", "per second", "TFLOP/s", "MFU", "before the steps",
        "exact sigmoid attention", "peak memory", "padding", "0.0 %", "no breakdown by kernel: the CPU"})
    EXPECT_TRUE(contains(result.out, part)) << "no '" << part << "' in: " << result.out;
}

TEST_F(BenchTrain, JsonHoldsNumbersThatAgreeWithEachOther) {
  const nlohmann::json json = measured({"--context", "64", "--lengths", "full"});
  EXPECT_EQ(json.at("benchmark"), "train");
  EXPECT_EQ(json.at("device").at("kind"), "cpu");
  EXPECT_EQ(json.at("settings").at("lengths"), "full");
  EXPECT_EQ(json.at("settings").at("attention"), "sigmoid");
  EXPECT_EQ(json.at("tokens"), 3 * 64);
  EXPECT_EQ(json.at("squared_lengths"), 3.0 * 64 * 64);
  EXPECT_EQ(json.at("steps_ms").size(), 3U);
  const double seconds = json.at("step_ms").get<double>() * 1e-3;
  EXPECT_NEAR(json.at("cells_per_second").get<double>() * seconds, 3, 1e-9);
  EXPECT_NEAR(json.at("tokens_per_second").get<double>() * seconds, 192, 1e-7);
  const double tflops = json.at("model_tflops_per_second");
  EXPECT_NEAR(tflops * 1e12 * seconds / json.at("flop_per_step").get<double>(), 1, 1e-9);
  EXPECT_NEAR(json.at("mfu").get<double>() * json.at("matrix_ceiling_tflops_per_second").get<double>(),
              tflops, 1e-9);
  EXPECT_EQ(json.at("padding_share"), 0.0);
  EXPECT_TRUE(json.at("peak_device_memory_bytes").is_null());
  EXPECT_TRUE(json.at("breakdown").is_null());
  EXPECT_NE(json.at("breakdown_problem"), "");
}

TEST_F(BenchTrain, ARowIsOneLineWithAsManyColumnsAsTheHeadInTheReadme) {
  const std::string readme = read_file("lib/train/README.md");
  const std::size_t head = readme.find("| parameters | cells, lengths, context |");
  ASSERT_NE(head, std::string::npos);
  const std::string head_line = readme.substr(head, readme.find('\n', head) - head);
  const auto result =
      scrna_train(tiny({"--context", "48", "--row", "--set", "model.attention_precision=fast"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(std::ranges::count(result.out, '\n'), 1) << result.out;
  EXPECT_EQ(std::ranges::count(result.out, '|'), std::ranges::count(head_line, '|')) << result.out;
  EXPECT_TRUE(contains(result.out, "| 3 cells, cellxgene, 48 | 144 | sigmoid, fast | none |")) << result.out;
}

TEST_F(BenchTrain, AttentionAndSettingsOverrideTheFile) {
  const nlohmann::json json = measured({"--context", "32", "--attention", "softmax", "--set",
                                        "model.num_layers=1", "--set", "model.dropout=0"});
  EXPECT_EQ(json.at("settings").at("attention_precision"), "exact");
  EXPECT_EQ(json.at("settings").at("attention"), "softmax");
  EXPECT_EQ(json.at("settings").at("num_layers"), 1);
  EXPECT_EQ(json.at("settings").at("dropout"), 0.0);
}

TEST_F(BenchTrain, WhatItCannotDoIsRefusedBeforeAnythingIsMeasured) {
  expect_failure(scrna_train({"bench", "train"}), 2, {"--config is missing", "bench train --config"});
  expect_failure(scrna_train(tiny({"--attention", "linear"})), 2, {"model.attention", "linear", "softmax"});
  expect_failure(scrna_train(tiny({"--lengths", "long"})), 2, {"--lengths", "long", "cellxgene"});
  expect_failure(scrna_train(tiny({"--set", "model.widht=64"})), 2, {"widht", "width"});
  expect_failure(scrna_train(tiny({"--context", "4"})), 2, {"--context", "at least 8"});
  expect_failure(scrna_train(tiny({"--json", folder_.path().string()})), 2,
                 {"--json", "is a folder", "train.json"});
}

TEST_F(BenchTrain, TheHelpHasExamplesAndTheGroupNamesIt) {
  const auto help = scrna_train({"bench", "train", "--help"});
  for (const char* part :
       {"Usage: scrna-train bench train", "--lengths NAME", "Examples:", "configs/160m.yaml"})
    EXPECT_TRUE(contains(help.out, part)) << help.out;
  EXPECT_TRUE(contains(scrna_train({"bench", "--help"}).out, "  train "));
}

TEST_F(BenchTrain, WithoutAGpuItNamesTheWayOut) {
  if (has_gpu()) GTEST_SKIP() << "this machine has a GPU";
  expect_failure(scrna_train({"bench", "train", "--config", config_.string()}), 5,
                 {"bench train", "--device cpu"});
}

TEST_F(BenchTrain, OnAGpuKernelsAreToldApartAndAddUp) {
  if (!has_gpu()) GTEST_SKIP() << "skipped: no CUDA device";
  const nlohmann::json json =
      measured({"--device", "cuda", "--context", "1024", "--cells", "8", "--vocabulary", "5000", "--set",
                "model.width=256", "--set", "model.num_heads=4", "--set", "model.feed_forward_width=1024"});
  ASSERT_TRUE(json.at("breakdown").is_object()) << json.at("breakdown_problem");
  double sum = 0;
  for (const auto& [name, milliseconds] : json.at("breakdown").at("classes_ms").items())
    sum += milliseconds.get<double>();
  const double busy = json.at("breakdown").at("busy_ms");
  EXPECT_GE(sum, busy * (1 - 1e-9));
  EXPECT_GE(json.at("breakdown").at("idle_ms").get<double>(), 0.0);
  EXPECT_NEAR(json.at("breakdown").at("recorded_step_ms").get<double>(),
              busy + json.at("breakdown").at("idle_ms").get<double>(), 1e-6);
  for (const char* name :
       {"matrix products", "attention", "norm and dropout", "gelu", "cross-entropy", "optimizer"})
    EXPECT_GT(json.at("breakdown").at("classes_ms").at(name), 0.0) << name;
  EXPECT_LT(json.at("breakdown").at("classes_ms").at("other"), 0.2 * sum);
  const double peak = json.at("peak_device_memory_bytes");
  EXPECT_NEAR(json.at("predicted_device_memory_bytes").get<double>(), peak, 0.1 * peak + 64e6);  // and cuBLAS
  EXPECT_LT(json.at("mfu"), 1.0);
}

}  // namespace
}  // namespace scrna
