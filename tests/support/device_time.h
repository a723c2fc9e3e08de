// Median milliseconds of a call on the GPU, for the benchmarks: the L2 cache is flushed before each launch, events stand
// around the call alone, and the host runs ahead while the flush is under way.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include <cuda_runtime_api.h>

#include "tests/support/device_memory.h"

namespace scrna::test {

inline double median_milliseconds(const std::function<void()>& call, double warm_up_milliseconds = 20,
                                  double measure_milliseconds = 60) {
  static DeviceVector<uint8_t> flush(size_t{256} << 20);
  const auto measure = [&](size_t count) {
    std::vector<cudaEvent_t> events(2 * count);
    for (cudaEvent_t& event : events) check_cuda(cudaEventCreate(&event), "event");
    for (size_t i = 0; i < count; ++i) {
      flush.fill_bytes(0);
      check_cuda(cudaEventRecord(events[2 * i]), "event");
      call();
      check_cuda(cudaEventRecord(events[2 * i + 1]), "event");
    }
    check_cuda(cudaDeviceSynchronize(), "timed call");
    std::vector<float> times(count);
    for (size_t i = 0; i < count; ++i) cudaEventElapsedTime(&times[i], events[2 * i], events[2 * i + 1]);
    for (cudaEvent_t& event : events) cudaEventDestroy(event);
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(count / 2), times.end());
    return static_cast<double>(times[count / 2]);
  };
  const double estimate = measure(3);
  measure(std::max<size_t>(1, static_cast<size_t>(warm_up_milliseconds / estimate)));
  return measure(std::max<size_t>(5, static_cast<size_t>(measure_milliseconds / estimate)));
}

}  // namespace scrna::test
