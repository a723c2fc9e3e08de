#include "lib/train/matrix_ceiling.h"

#include <algorithm>
#include <functional>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "lib/core/clock.h"
#include "lib/train/device_memory.h"

namespace scrna::train {
namespace {

constexpr int64_t kGpuSide = 8192;  // 1.1 TFLOP: 1.5 ms on an H200
constexpr int64_t kCpuSide = 768;
constexpr std::size_t kFewestProducts = 3;
constexpr std::size_t kMostProducts = 1000;

double median_of_second_half(std::vector<double> values) {
  values.erase(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2));
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::size_t fitting(double seconds, double each) {
  return std::clamp(static_cast<std::size_t>(seconds / std::max(each, 1e-9)), kFewestProducts, kMostProducts);
}

// Seconds of each call between events on the current stream, the device busy throughout.
std::vector<double> device_seconds(at::Device device, std::size_t calls, const std::function<void()>& call) {
  const c10::Stream stream = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  std::vector<c10::Event> events;
  for (std::size_t i = 0; i <= calls; ++i)
    events.emplace_back(device.type(), c10::EventFlag::BACKEND_DEFAULT);
  events.front().record(stream);
  for (std::size_t i = 0; i < calls; ++i) {
    call();
    events[i + 1].record(stream);
  }
  events.back().synchronize();
  std::vector<double> seconds;
  for (std::size_t i = 0; i < calls; ++i) seconds.push_back(events[i].elapsedTime(events[i + 1]) * 1e-3);
  return seconds;
}

std::vector<double> host_seconds(std::size_t calls, const std::function<void()>& call) {
  std::vector<double> seconds;
  for (std::size_t i = 0; i < calls; ++i) {
    const double start = now_seconds();
    call();
    seconds.push_back(now_seconds() - start);
  }
  return seconds;
}

}  // namespace

double measure_matrix_ceiling(at::Device device, at::ScalarType type, double seconds) {
  const at::NoGradGuard no_grad;
  const bool on_host = device.is_cpu();
  const int64_t side = on_host ? kCpuSide : kGpuSide;
  double each = 0;
  {
    const at::TensorOptions options = at::TensorOptions(device).dtype(type);
    const at::Tensor a = at::randn({side, side}, options), b = at::randn({side, side}, options);
    at::Tensor c = at::mm(a, b);  // loads and plans what the first call does
    const auto product = [&] { at::mm_out(c, a, b); };
    const auto measured = [&](std::size_t calls) {
      return median_of_second_half(on_host ? host_seconds(calls, product)
                                           : device_seconds(device, calls, product));
    };
    each = measured(kFewestProducts);
    each = measured(fitting(seconds, each));
  }
  if (!on_host) {
    release_cached_memory(device);
    reset_peak_memory(device);
  }
  return 2.0 * static_cast<double>(side) * static_cast<double>(side) * static_cast<double>(side) / each;
}

}  // namespace scrna::train
