// Where a benchmark runs: the flag --device of every one.
#pragma once

#include <array>
#include <string_view>
#include <utility>

namespace scrna::bench {

enum class Device { kCuda, kCpu };
constexpr auto enum_names(Device) {
  return std::array{std::pair{std::string_view("cuda"), Device::kCuda},
                    std::pair{std::string_view("cpu"), Device::kCpu}};
}

/// Throws DeviceError without a usable GPU; `benchmark` names the command in the message.
void require_gpu(std::string_view benchmark);

}  // namespace scrna::bench
