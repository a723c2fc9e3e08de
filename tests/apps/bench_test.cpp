// scrna-train bench: the table, the JSON file and the refusals, on tiny problems.
#include <fstream>

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

std::vector<std::string> tiny(std::vector<std::string> more = {}) {
  std::vector<std::string> words{"bench",    "attention", "--device",     "cpu",
                                 "--tokens", "96",        "--measure-ms", "1"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

bool has_gpu() { return contains(scrna_train({"--version"}).out, "GPU 0"); }

void expect_measured(const nlohmann::json& row, const std::string& form, bool forward = true) {
  const nlohmann::json& measured = row.at("forms").at(form);
  EXPECT_FALSE(measured.contains("problem")) << row.at("name") << ": " << measured;
  for (const std::string pass : {"forward", "backward"}) {
    if (pass == "forward" && !forward) continue;
    const double milliseconds = measured.at(pass + "_ms"), tflops = measured.at(pass + "_tflops");
    EXPECT_GT(milliseconds, 0.0);
    EXPECT_NEAR(tflops, row.at(pass + "_flop").get<double>() / milliseconds * 1e-9, 1e-9 * tflops);
  }
}

TEST(Bench, TheTableHasARowForEveryProblemAndALegend) {
  const auto result = scrna_train(tiny());
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* part :
       {"milliseconds forward / forward and backward", "sigmoid", "softmax", "\nd64 T=96 ",
        "\nragged 192 tokens 12x64 ", "\none cell of 96 12x64 ", "scaled_dot_product_attention"})
    EXPECT_TRUE(contains(result.out, part)) << "no '" << part << "' in: " << result.out;
  EXPECT_TRUE(contains(result.err, "1 of 4 rows: d64 T=96")) << result.err;
}

TEST(Bench, JsonHoldsMachineSettingsAndEveryMeasurement) {
  const test::TempDir folder;
  const std::filesystem::path file = folder / "attention.json";
  const auto result = scrna_train(tiny({"--json", file.string()}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json json = nlohmann::json::parse(read_file(file));
  EXPECT_EQ(json.at("benchmark"), "attention");
  EXPECT_EQ(json.at("device").at("kind"), "cpu");
  EXPECT_NE(json.at("device").at("name"), "");
  EXPECT_TRUE(contains(json.at("versions").at("libtorch"), "."));
  EXPECT_EQ(json.at("settings").at("tokens"), 96);
  ASSERT_EQ(json.at("rows").size(), 4U);
  for (const nlohmann::json& row : json.at("rows"))
    for (const nlohmann::json& form : json.at("forms")) expect_measured(row, form.at("key"));
}

TEST(Bench, HalfTypesAreMeasuredOnTheCpuToo) {
  const auto result = scrna_train(tiny({"--only", "d64", "--dtype", "bf16"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.out, ", bf16\n"));
  EXPECT_FALSE(contains(result.out, "not measured")) << result.out;
}

TEST(Bench, OnlyKeepsRowsThatContainOneOfTheWords) {
  const auto result = scrna_train(tiny({"--only", "ragged", "d128"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.out, "\nd128 T=96 "));
  EXPECT_TRUE(contains(result.out, "\nragged 192 tokens 12x64 "));
  EXPECT_FALSE(contains(result.out, "\nd64 T=96 "));
  EXPECT_TRUE(contains(result.err, "2 of 2 rows"));
}

TEST(Bench, WhatItCannotDoIsRefusedBeforeAnythingIsMeasured) {
  const test::TempDir folder;
  expect_failure(scrna_train(tiny({"--only", "d32"})), 2, {"--only d32", "'d64 T=96'"});
  expect_failure(scrna_train({"bench", "attention", "--dtype", "fp32"}), 2,
                 {"--dtype fp32", "bf16", "--device cpu"});
  expect_failure(scrna_train(tiny({"--dtype", "fp8"})), 2, {"--dtype", "fp8", "bf16"});
  expect_failure(scrna_train({"bench", "attention", "--measure-ms", "0"}), 2, {"--measure-ms", "above 0"});
  expect_failure(scrna_train(tiny({"--tokns", "5"})), 2, {"--tokns", "--tokens", "bench attention --help"});
  expect_failure(scrna_train(tiny({"--flash-attention-3", "x.so"})), 2, {"--flash-attention-3", "GPU"});
  expect_failure(scrna_train(tiny({"--json", folder.path().string()})), 2, {"--json", "is a folder"});
  expect_failure(scrna_train(tiny({"--json", (folder / "no/x.json").string()})), 3,
                 {"there is no folder", "mkdir -p"});
}

TEST(Bench, TheGroupNamesItsBenchmarks) {
  const auto help = scrna_train({"bench", "--help"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_TRUE(contains(help.out, "scrna-train bench: ")) << help.out;
  EXPECT_TRUE(contains(help.out, "  attention ")) << help.out;
  const auto attention = scrna_train({"bench", "attention", "--help"});
  for (const char* part : {"Usage: scrna-train bench attention", "--flash-attention-3 FILE.so", "Examples:"})
    EXPECT_TRUE(contains(attention.out, part)) << attention.out;
  expect_failure(scrna_train({"bench"}), 2, {"no command given", "'scrna-train bench'", "attention"});
  expect_failure(scrna_train({"bench", "atention"}), 2, {"atention", "did you mean 'attention'"});
}

TEST(Bench, WithoutAGpuItNamesTheWayOut) {
  if (has_gpu()) GTEST_SKIP() << "this machine has a GPU";
  expect_failure(scrna_train({"bench", "attention"}), 5, {"no CUDA device", "--device cpu"});
}

TEST(Bench, OnAGpuOursAndLibTorchsAreMeasured) {
  if (!has_gpu()) GTEST_SKIP() << "skipped: no CUDA device";
  const test::TempDir folder;
  const std::filesystem::path file = folder / "attention.json";
  const auto result = scrna_train({"bench", "attention", "--tokens", "1024", "--measure-ms", "3", "--only",
                                   "T=512", "ragged 32", "--json", file.string()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json json = nlohmann::json::parse(read_file(file));
  EXPECT_NE(json.at("versions").at("cuda_runtime"), "");
  ASSERT_EQ(json.at("rows").size(), 8U);
  for (const nlohmann::json& row : json.at("rows")) {
    for (const char* form : {"sigmoid_exact", "sigmoid_fast", "libtorch_flash"}) expect_measured(row, form);
    expect_measured(row, "sigmoid_deterministic", /*forward=*/false);
  }
  expect_failure(scrna_train({"bench", "attention", "--flash-attention-3", file.string()}), 2,
                 {"--flash-attention-3", "cannot load it"});
}

}  // namespace
}  // namespace scrna
