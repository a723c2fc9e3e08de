// What the system calls the device, for run.json. Read from /proc, so that no CUDA header is needed.
#pragma once

#include <string>

#include <c10/core/Device.h>

namespace scrna::train {

/// "NVIDIA H200" or the processor's name; of a machine with several kinds of GPU, all of them; "" where the system does
/// not say.
std::string device_name(at::Device device);

}  // namespace scrna::train
