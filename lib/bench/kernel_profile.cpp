#include "lib/bench/kernel_profile.h"

#include <set>

#include <torch/csrc/autograd/profiler_kineto.h>

namespace scrna::bench {
namespace {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

// Stops collecting also when the work throws.
class Collection {
 public:
  Collection() {
    const ProfilerConfig config(ProfilerState::KINETO);
    const std::set<ActivityType> activities{ActivityType::CUDA};
    profiler::prepareProfiler(config, activities);
    profiler::enableProfiler(config, activities);
  }
  ~Collection() {
    if (!is_running_) return;
    try {
      profiler::disableProfiler();
    } catch (...) {  // what the work threw is what matters
    }
  }
  Collection(const Collection&) = delete;
  Collection& operator=(const Collection&) = delete;
  std::unique_ptr<profiler::ProfilerResult> finish() {
    is_running_ = false;
    return profiler::disableProfiler();
  }

 private:
  bool is_running_ = true;
};

}  // namespace

DeviceProfile profile_device(at::Device device, const std::function<void()>& work) {
  DeviceProfile profile;
  if (device.is_cpu()) {
    work();
    profile.problem = "the CPU has no kernels to tell apart";
    return profile;
  }
  Collection collection;
  work();
  const auto result = collection.finish();
  for (const profiler::KinetoEvent& event : result->events()) {
    // Calls of the CUDA runtime are events of the CPU; annotations and synchronisations were not asked for.
    if (event.deviceType() != device.type() || event.durationNs() == 0) continue;
    profile.events.push_back({.name = event.name(),
                              .start_ns = static_cast<int64_t>(event.startNs()),
                              .duration_ns = static_cast<int64_t>(event.durationNs())});
  }
  if (profile.events.empty()) {
    profile.problem =
        "LibTorch's profiler saw no kernels: CUPTI is not usable here (no permission for performance "
        "counters, or another "
        "profiler is attached)";
  }
  return profile;
}

}  // namespace scrna::bench
