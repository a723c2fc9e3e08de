#include "lib/train/meters.h"

#include <span>
#include <utility>

#include "lib/train/device_memory.h"

namespace scrna::train {

StepLoad load_of(const DeviceBatch& batch) {
  StepLoad load{.masked_tokens = batch.num_masked};
  for (const model::TokenTensors& pack : batch.micro_batches) {
    const at::Tensor& begins = pack.cu_seqlens_host;
    add_cells(load, std::span(begins.const_data_ptr<int32_t>(), static_cast<std::size_t>(begins.numel())),
              pack.tokens.numel());
  }
  return load;
}

Meters::Meters(model::ModelConfig model, int64_t vocabulary_size, at::Device device,
               std::optional<double> ceiling_flop_per_second)
    : model_(std::move(model)),
      vocabulary_size_(vocabulary_size),
      device_(device),
      ceiling_flop_per_second_(ceiling_flop_per_second) {}

MeterReading Meters::add(const StepLoad& load, double seconds, double data_wait_seconds) {
  const Sum step{load, step_flop(model_, vocabulary_size_, load), seconds, data_wait_seconds};
  total_ += step;
  recent_.push_back(step);
  if (recent_.size() > kRecentSteps) recent_.pop_front();
  return reading(step);
}

Meters::Sum& Meters::Sum::operator+=(const Sum& other) {
  load.cells += other.load.cells;
  load.tokens += other.load.tokens;
  load.rows += other.load.rows;
  flop += other.flop;
  seconds += other.seconds;
  data_wait_seconds += other.data_wait_seconds;
  return *this;
}

MeterReading Meters::recent() const {
  Sum sum;
  for (const Sum& step : recent_) sum += step;
  return reading(sum);
}

MeterReading Meters::total() const { return reading(total_); }

MeterReading Meters::reading(const Sum& sum) const {
  const auto per_second = [&](double count) { return sum.seconds > 0 ? count / sum.seconds : 0; };
  MeterReading reading{.cells_per_second = per_second(static_cast<double>(sum.load.cells)),
                       .tokens_per_second = per_second(static_cast<double>(sum.load.tokens)),
                       .flop_per_second = per_second(sum.flop),
                       .data_wait_share = per_second(sum.data_wait_seconds),
                       .padding_share = sum.load.padding_share()};
  if (ceiling_flop_per_second_) reading.mfu = reading.flop_per_second / *ceiling_flop_per_second_;
  if (!device_.is_cpu()) reading.peak_device_memory_bytes = peak_memory_bytes(device_);
  return reading;
}

}  // namespace scrna::train
