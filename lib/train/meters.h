// How well a run uses its machine, measured on every step: model FLOP/s (flops.h) and their share of what
// matrix products reach on this device (MFU), the share of time spent waiting for data, padding, the device's
// peak memory. Kept apart from StepReport, which says what a step computed: meters say what it cost.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include <c10/core/Device.h>

#include "lib/model/model_config.h"
#include "lib/train/device_batch.h"
#include "lib/train/flops.h"

namespace scrna::train {

/// Of one step or of a whole run.
struct MeterReading {
  double cells_per_second = 0;
  double tokens_per_second = 0;
  double flop_per_second = 0;                       // of the model
  std::optional<double> mfu;                        // none without a measured ceiling: on the CPU
  double data_wait_share = 0;                       // part of the time in which the step waited for its cells
  double padding_share = 0;                         // part of the rows computed that belongs to no cell
  std::optional<int64_t> peak_device_memory_bytes;  // since the start of the run; none on the CPU
};

/// What a batch costs. Does not touch the device.
StepLoad load_of(const DeviceBatch& batch);

class Meters {
 public:
  /// ceiling_flop_per_second: matrix_ceiling.h, or none.
  Meters(model::ModelConfig model, int64_t vocabulary_size, at::Device device,
         std::optional<double> ceiling_flop_per_second);

  static constexpr std::size_t kRecentSteps = 10;

  /// A step that took `seconds`, of which `data_wait_seconds` were lost waiting for its cells. Returns its
  /// reading.
  MeterReading add(const StepLoad& load, double seconds, double data_wait_seconds);
  /// Over the last kRecentSteps steps added: steps of other cells take other times.
  [[nodiscard]] MeterReading recent() const;
  /// Over all steps added.
  [[nodiscard]] MeterReading total() const;

 private:
  struct Sum {
    StepLoad load;
    double flop = 0;
    double seconds = 0;
    double data_wait_seconds = 0;

    Sum& operator+=(const Sum& other);
  };
  [[nodiscard]] MeterReading reading(const Sum& sum) const;

  model::ModelConfig model_;
  int64_t vocabulary_size_;
  at::Device device_;
  std::optional<double> ceiling_flop_per_second_;
  Sum total_;
  std::deque<Sum> recent_;  // the newest last
};

}  // namespace scrna::train
