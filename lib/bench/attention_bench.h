// `bench attention`: every form of attention on every row, forward and backward, in one run. Before a form is
// timed its results are compared with those of the first form of its kind, so that no column can be fast by
// being wrong.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/bench/attention_problem.h"
#include "lib/bench/device.h"
#include "lib/bench/timer.h"
#include "lib/config/bound.h"

namespace scrna::bench {

enum class Type { kAuto, kBFloat16, kFloat16, kFloat32 };
constexpr auto enum_names(Type) {
  return std::array{std::pair{std::string_view("auto"), Type::kAuto},
                    std::pair{std::string_view("bf16"), Type::kBFloat16},
                    std::pair{std::string_view("fp16"), Type::kFloat16},
                    std::pair{std::string_view("fp32"), Type::kFloat32}};
}

enum class Bias { kLength, kLearnable };
constexpr auto enum_names(Bias) {
  return std::array{std::pair{std::string_view("length"), Bias::kLength},
                    std::pair{std::string_view("learnable"), Bias::kLearnable}};
}

struct AttentionBenchOptions {
  Device device = Device::kCuda;
  Type dtype = Type::kAuto;
  Bias bias = Bias::kLength;
  int64_t tokens = 0;
  double measure_ms = 100;
  std::vector<std::string> only;  // words; rows whose name contains one of them
  std::string flash_attention_3;  // path of a shared library, or empty

  template <class V>
  void visit(V&& v) {
    v("device", device, "cuda: the first GPU; cpu");
    v("dtype", dtype, "type of the operands; auto: bf16 on a GPU, fp32 on the CPU");
    v("bias", bias,
      "of our sigmoid on a GPU. length: -log of the cell's length; learnable: one per cell, its gradient "
      "computed");
    v("tokens", tokens, "tokens of a row with cells of one length; 0: 16384 on a GPU, 2048 on the CPU",
      config::between(0, 1048576));
    v("measure_ms", measure_ms, "milliseconds of launches that a median is taken of", config::above(0));
  }
};

struct AttentionMeasurement {
  std::optional<double> forward_milliseconds, backward_milliseconds;
  std::string problem;  // why there is no number
};

struct AttentionRowResult {
  AttentionRow row;
  std::vector<AttentionMeasurement> forms;  // in the order of AttentionBench::forms()
};

class AttentionBench {
 public:
  /// Throws ConfigError (no row has such a name, a type the device does not compute with, a library that
  /// cannot be loaded) and DeviceError (no GPU).
  explicit AttentionBench(AttentionBenchOptions options);

  [[nodiscard]] const std::vector<AttentionRow>& rows() const { return rows_; }
  [[nodiscard]] const std::vector<AttentionForm>& forms() const { return forms_; }
  [[nodiscard]] const AttentionBenchOptions& options() const {
    return options_;
  }  // tokens and dtype resolved
  [[nodiscard]] bool on_gpu() const { return options_.device == Device::kCuda; }
  /// FLOP that a form's backward time is spent on, in units of the forward pass: 2.5, or 3.5 for forward and
  /// backward.
  [[nodiscard]] double backward_flop_factor() const { return on_gpu() ? 2.5 : 3.5; }

  /// Blocks; calls `done` after each row. Throws DeviceError when one of our own forms fails; what a peer
  /// throws becomes the problem of its measurement.
  void run(const std::function<void(const AttentionRowResult&, double seconds)>& done);

 private:
  AttentionBenchOptions options_;
  std::vector<AttentionRow> rows_;
  std::vector<AttentionForm> forms_;
};

/// One row: every form is prepared, run once and compared with the first of its kind; `medians_of` times what
/// is right.
AttentionRowResult measure_row(const AttentionRow& row, const std::vector<AttentionForm>& forms,
                               const at::Device& device, at::ScalarType type, const Medians& medians_of);

}  // namespace scrna::bench
