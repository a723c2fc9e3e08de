// How long a call takes, as triton.testing.do_bench measures it on a GPU: before every launch the L2 cache is
// flushed (by zeroing a buffer larger than it), events around the launch alone, a warm-up, then the median of
// as many launches as fit into the time given, flushes included. On the CPU several calls take turns, so that
// whatever else the machine does hits all of them alike; the median of each.
#pragma once

#include <functional>
#include <memory>
#include <vector>

namespace scrna::bench {

using Call = std::function<void()>;

class GpuTimer {
 public:
  /// The current device. Allocates the buffer that flushes the cache.
  explicit GpuTimer(double measure_milliseconds);
  ~GpuTimer();
  GpuTimer(const GpuTimer&) = delete;
  GpuTimer& operator=(const GpuTimer&) = delete;
  /// Median milliseconds of the call, which launches on the current stream. Blocks. Throws DeviceError.
  double median_milliseconds(const Call& call);

 private:
  struct State;
  std::unique_ptr<State> state_;
  double measure_milliseconds_;
};

/// Median milliseconds of each call: rounds in which every call runs once, until each had about
/// measure_milliseconds, at least three rounds after one to warm up.
std::vector<double> median_milliseconds_in_turns(const std::vector<Call>& calls, double measure_milliseconds);

}  // namespace scrna::bench
