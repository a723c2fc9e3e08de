// How long calls take. On a GPU as triton.testing.do_bench measures: before every launch the L2 cache is
// flushed (by zeroing a buffer larger than it), events around the launch alone, warm-up, then the median of
// as many launches as fit into the time given, flushes included. The calls of one row take turns in three
// rounds, so that clocks and temperature, which drift by several percent within seconds, hit all of them
// alike. On the CPU they take turns call by call.
#pragma once

#include <functional>
#include <memory>
#include <vector>

namespace scrna::bench {

using Call = std::function<void()>;
/// Median milliseconds of each call.
using Medians = std::function<std::vector<double>(const std::vector<Call>&)>;

class GpuTimer {
 public:
  /// The current device. Allocates the buffer that flushes the cache.
  explicit GpuTimer(double measure_milliseconds);
  ~GpuTimer();
  GpuTimer(const GpuTimer&) = delete;
  GpuTimer& operator=(const GpuTimer&) = delete;
  /// Median milliseconds of each call; they launch on the current stream. Blocks. Throws DeviceError.
  std::vector<double> median_milliseconds(const std::vector<Call>& calls);

 private:
  struct State;
  std::unique_ptr<State> state_;
  double measure_milliseconds_;
};

/// Median milliseconds of each call: rounds in which every call runs once, until each had about
/// measure_milliseconds, at least three rounds after one to warm up.
std::vector<double> median_milliseconds_in_turns(const std::vector<Call>& calls, double measure_milliseconds);

}  // namespace scrna::bench
