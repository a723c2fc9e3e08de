// scrna-train bench embed: text and JSON on a tiny model.
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

class BenchEmbed : public testing::Test {
 protected:
  void SetUp() override {
    write_file_atomically(config_,
                          "model: {num_layers: 2, width: 32, num_heads: 2, feed_forward_width: 64}\n");
  }
  [[nodiscard]] test::ProcessResult bench(const std::vector<std::string>& more) const {
    std::vector<std::string> words{
        "bench", "embed",        "--config", config_.string(), "--device", "cpu",       "--cells",
        "8",     "--vocabulary", "50",       "--context",      "250",      "--repeats", "2"};
    words.insert(words.end(), more.begin(), more.end());
    return scrna_train(words);
  }
  test::TempDir folder_;
  std::filesystem::path config_ = folder_ / "tiny.yaml";
};

TEST_F(BenchEmbed, TextAndJsonSayTheSame) {
  const std::filesystem::path file = folder_ / "embed.json";
  const auto result = bench({"--tokens-per-pack", "600", "--json", file.string()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"8 cells (cellxgene lengths, longest 250)", "mean of layer 2", "per second",
                           "TFLOP/s", "median of 2", "peak memory", "no files read"})
    EXPECT_TRUE(contains(result.out, part)) << "no '" << part << "' in: " << result.out;
  const nlohmann::json json = nlohmann::json::parse(read_file(file));
  EXPECT_EQ(json.at("cells"), 8);
  const int64_t tokens = json.at("tokens"), packs = json.at("packs");
  EXPECT_GE(packs, (tokens + 599) / 600);
  EXPECT_LE(packs, 8);
  const double seconds = json.at("median_seconds");
  EXPECT_NEAR(json.at("cells_per_second").get<double>() * seconds, 8, 1e-6);
  EXPECT_NEAR(json.at("tokens_per_second").get<double>() * seconds, static_cast<double>(tokens), 1e-6);
  // Forward: 2 (4 D^2 + 2 D F) a token and layer, 4 D n^2 a cell and layer.
  const double expected = 2 * (2.0 * (4 * 32 * 32 + 2 * 32 * 64) * static_cast<double>(tokens) +
                               4.0 * 32 * json.at("squared_lengths").get<double>());
  EXPECT_NEAR(json.at("flop").get<double>(), expected, 1e-6 * expected);
}

TEST_F(BenchEmbed, FastIsThreeSettingsThatSetMayTakeBack) {
  const std::filesystem::path file = folder_ / "embed.json";
  const auto result = bench({"--fast", "--set", "model.residual_precision=fp32", "--json", file.string()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json settings = nlohmann::json::parse(read_file(file)).at("settings");
  EXPECT_EQ(settings.at("attention_precision"), "fast");
  EXPECT_EQ(settings.at("gelu_precision"), "fast");
  EXPECT_EQ(settings.at("residual_precision"), "fp32");
}

TEST_F(BenchEmbed, RefusesWhatItCannotMeasure) {
  expect_failure(bench({"--layer", "3"}), 2, {"--layer", "2 (the last)"});
  expect_failure(scrna_train({"bench", "embed"}), 2, {"--config is missing"});
  expect_failure(bench({"--json", folder_.path().string()}), 2, {"--json"});
}

}  // namespace
}  // namespace scrna
