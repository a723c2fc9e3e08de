#include "lib/bench/timer.h"

#include <algorithm>

#include "lib/core/clock.h"
#include "lib/core/error.h"

#ifdef SCRNA_CUDA_ENABLED
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#endif

namespace scrna::bench {
namespace {

std::vector<double> medians(std::vector<std::vector<double>> times) {
  std::vector<double> result;
  for (std::vector<double>& x : times) {
    const auto middle = x.begin() + static_cast<std::ptrdiff_t>(x.size() / 2);
    std::nth_element(x.begin(), middle, x.end());
    result.push_back(*middle);
  }
  return result;
}

}  // namespace

#ifdef SCRNA_CUDA_ENABLED

namespace {

constexpr int64_t kFlushBytes = int64_t{256} << 20;  // the L2 of an H100 has 50 MiB, of a B200 126
constexpr double kWarmUpMilliseconds = 10;
constexpr int kRounds = 3;
constexpr size_t kLaunchesOfEstimate = 5;
constexpr size_t kFewestLaunches = 3;

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw DeviceError("{}: {}", what, cudaGetErrorString(status));
}

}  // namespace

struct GpuTimer::State {
  at::Tensor flush = at::empty({kFlushBytes}, at::TensorOptions(at::kCUDA).dtype(at::kByte));
  std::vector<cudaEvent_t> events;

  ~State() {
    for (cudaEvent_t event : events) cudaEventDestroy(event);
  }
  cudaEvent_t event(size_t index) {
    while (events.size() <= index) {
      cudaEvent_t event = nullptr;
      check(cudaEventCreate(&event), "cudaEventCreate");
      events.push_back(event);
    }
    return events[index];
  }
  static double elapsed(cudaEvent_t from, cudaEvent_t to) {
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, from, to), "cudaEventElapsedTime");
    return static_cast<double>(milliseconds);
  }
  /// Milliseconds of each of `launches` launches; the last element: of everything, flushes included.
  std::vector<double> measure(const Call& call, size_t launches) {
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    const cudaEvent_t start = event(2 * launches), end = event(2 * launches + 1);
    check(cudaEventRecord(start, stream), "cudaEventRecord");
    for (size_t i = 0; i < launches; ++i) {
      flush.zero_();
      check(cudaEventRecord(event(2 * i), stream), "cudaEventRecord");
      call();
      check(cudaEventRecord(event(2 * i + 1), stream), "cudaEventRecord");
    }
    check(cudaEventRecord(end, stream), "cudaEventRecord");
    check(cudaDeviceSynchronize(), "a timed launch");
    std::vector<double> times;
    for (size_t i = 0; i < launches; ++i) times.push_back(elapsed(event(2 * i), event(2 * i + 1)));
    times.push_back(elapsed(start, end));
    return times;
  }
};

GpuTimer::GpuTimer(double measure_milliseconds)
    : state_(std::make_unique<State>()), measure_milliseconds_(measure_milliseconds) {}
GpuTimer::~GpuTimer() = default;

std::vector<double> GpuTimer::median_milliseconds(const std::vector<Call>& calls) {
  std::vector<double> each;  // milliseconds of a launch and its flush
  for (const Call& call : calls) {
    call();  // whatever is compiled, loaded or planned at the first launch
    each.push_back(state_->measure(call, kLaunchesOfEstimate).back() / kLaunchesOfEstimate);
  }
  std::vector<std::vector<double>> times(calls.size());
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < calls.size(); ++i) {
      const auto fitting = [&](double milliseconds) {
        return std::max(kFewestLaunches, static_cast<size_t>(milliseconds / each[i]));
      };
      state_->measure(calls[i], fitting(kWarmUpMilliseconds));
      const auto measured = state_->measure(calls[i], fitting(measure_milliseconds_ / kRounds));
      times[i].insert(times[i].end(), measured.begin(), measured.end() - 1);
    }
  }
  return medians(std::move(times));
}

#else

struct GpuTimer::State {};
GpuTimer::GpuTimer(double) : measure_milliseconds_(0) {
  throw DeviceError("this program was built without CUDA");
}
GpuTimer::~GpuTimer() = default;
std::vector<double> GpuTimer::median_milliseconds(const std::vector<Call>&) {
  return {measure_milliseconds_};
}

#endif

std::vector<double> median_milliseconds_in_turns(const std::vector<Call>& calls,
                                                 double measure_milliseconds) {
  constexpr size_t kFewestRounds = 3;
  for (const Call& call : calls) call();
  std::vector<std::vector<double>> times(calls.size());
  const double budget_seconds = measure_milliseconds / 1e3 * static_cast<double>(calls.size());
  const double start = now_seconds();
  for (size_t round = 0; round < kFewestRounds || now_seconds() - start < budget_seconds; ++round) {
    for (size_t i = 0; i < calls.size(); ++i) {
      const double begin = now_seconds();
      calls[i]();
      times[i].push_back(1e3 * (now_seconds() - begin));
    }
  }
  return medians(std::move(times));
}

}  // namespace scrna::bench
