// Which kernels ran on the device, from LibTorch's own profiler (kineto over CUPTI): part of the LibTorch
// that the program links, so a profile needs neither Nsight nor a second build, wherever the program is
// carried. Collecting slows the host a little, so profiled steps are not the timed ones.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "lib/bench/kernel_classes.h"

namespace scrna::bench {

struct DeviceProfile {
  std::vector<DeviceEvent> events;  // kernels, copies, zeroing of memory; empty: see problem
  std::string problem;              // why there is nothing: one phrase
};

/// Runs `work`, which must wait for the device at its end, while kernels are recorded. On the CPU, and where
/// CUPTI gives nothing (no permission, another tool attached), `work` still runs and `problem` says so.
/// Passes on what `work` throws.
DeviceProfile profile_device(at::Device device, const std::function<void()>& work);

}  // namespace scrna::bench
