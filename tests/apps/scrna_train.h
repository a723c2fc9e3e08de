// The program under test, and what the end-to-end tests expect of it. CMake gives its path.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/process.h"

namespace scrna::test {

inline ProcessResult scrna_train(std::vector<std::string> arguments, const ProcessOptions& options = {}) {
  arguments.insert(arguments.begin(), SCRNA_TRAIN_PROGRAM);
  return run_process(arguments, options);
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// One line on stderr that begins "scrna-train: error:" and holds all `parts`, nothing on stdout, that exit
/// code.
inline void expect_failure(const ProcessResult& result, int exit_code,
                           const std::vector<std::string>& parts) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  EXPECT_EQ(result.out, "");
  const std::string start = "scrna-train: error: ";
  const std::size_t begin = result.err.find(start);
  ASSERT_NE(begin, std::string::npos) << result.err;
  EXPECT_EQ(result.err.find(start, begin + 1), std::string::npos)
      << "the error is told twice: " << result.err;
  EXPECT_EQ(result.err.find('\n', begin), result.err.size() - 1) << "it is not one line: " << result.err;
  for (const std::string& part : parts)
    EXPECT_TRUE(contains(result.err, part)) << "no '" << part << "' in: " << result.err;
}

/// The first lines of a configuration that trains a tiny model on that file on the CPU: data, tokenizer and
/// model.
inline std::string small_model_config(const std::filesystem::path& cells) {
  return "data: {files: " + cells.string() +
         ", heldout_fraction: 0.2, min_genes: 5}\n"
         "tokenizer: {max_tokens: 16}\n"
         "model: {num_layers: 1, width: 16, num_heads: 2, feed_forward_width: 32}\n";
}

/// Trains that model for two steps; its configuration stands beside the run, RUN.yaml.
inline void train_small(const std::filesystem::path& cells, const std::filesystem::path& run) {
  const std::string config = run.string() + ".yaml";
  std::ofstream(config) << small_model_config(cells) << "optim: {warmup_steps: 1}\n"
                        << "train: {steps: 2, global_batch_cells: 8, device: cpu, num_threads: 1}\n"
                        << "heldout: {every_steps: 0}\n";
  const ProcessResult result = scrna_train({"train", "--config", config, "--set", "run.dir=" + run.string()});
  ASSERT_EQ(result.exit_code, 0) << result.err;
}

/// A small valid file made by the program itself: 60 cells x 50 genes.
inline void synthesize_small(const std::filesystem::path& path) {
  const ProcessResult result = scrna_train({"synthesize", "--out", path.string(), "--cells", "60", "--genes",
                                            "50", "--median-genes", "20", "--programs", "4"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
}

}  // namespace scrna::test
