// A run as its files tell it: config.yaml, run.json, metrics.jsonl, divergence/, checkpoints/latest/state.json. A run that is
// still going on is read as far as it got; a line cut off at the end is left out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace scrna::report {

/// One number over the steps at which it was written; null became NaN.
struct Curve {
  std::vector<double> steps, values;
};

struct DivergedStep {
  int64_t step = 0;
  std::string reason, policy;
  double loss = 0, grad_norm = 0, grad_norm_limit = 0;
  int64_t cells = 0;
  std::filesystem::path file;
};

struct RunData {
  std::filesystem::path folder;
  std::string name;                                      // of the folder, or what the caller calls the run
  std::vector<std::pair<std::string, std::string>> config;  // "optim.learning_rate" -> "1e-04", in the file's order
  std::map<std::string, std::string> facts;              // run.json: "device", "parameters", ...
  std::map<std::string, Curve> curves;                   // "loss"; by layer: "grad_norm_per_layer/layer_00"
  std::vector<DivergedStep> diverged;                    // ascending
  std::vector<std::pair<int64_t, int64_t>> rollbacks;    // from step, to step
  std::vector<double> length_edges, length_counts;       // cells trained on, by tokens; empty when not known
  int64_t steps_done = 0;

  /// The curve of that key, or null.
  [[nodiscard]] const Curve* find(const std::string& key) const;
  /// Names below `key` ("layer_00" ...), in order.
  [[nodiscard]] std::vector<std::string> layers_of(const std::string& key) const;
  /// A setting's text, or empty.
  [[nodiscard]] std::string setting(const std::string& path) const;
  /// A setting as a number, or NaN.
  [[nodiscard]] double number(const std::string& path) const;
  /// The step whose divergence ended the run, or nothing: it finished, goes on, or went on after each.
  [[nodiscard]] std::optional<DivergedStep> end() const;
  [[nodiscard]] bool is_finished() const;  // all of train.steps are done
  /// Mean of the last tenth of a curve's finite values (at least one), or NaN.
  [[nodiscard]] double last_mean(const std::string& key) const;
  [[nodiscard]] double largest(const std::string& key) const;
  /// Sum of seconds of all steps.
  [[nodiscard]] double training_seconds() const;
};

/// Throws DataError when the folder is no run directory or a file of it cannot be understood.
RunData read_run(const std::filesystem::path& folder, const std::string& name = {});

}  // namespace scrna::report
