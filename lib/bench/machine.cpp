#include "lib/bench/machine.h"

#include <fstream>
#include <regex>

#include <ATen/Parallel.h>

#include "kernels/attention_cpu.h"
#include "lib/core/error.h"

#ifdef SCRNA_CUDA_ENABLED
#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <cuda_runtime_api.h>
#endif

namespace scrna::bench {
namespace {

/// The first match of the pattern's group in a file of the system; empty without.
std::string find_in_file(const char* path, const std::string& pattern) {
  std::ifstream stream(path);
  const std::regex expression(pattern);
  std::smatch match;
  for (std::string line; std::getline(stream, line);)
    if (std::regex_search(line, match, expression)) return match[1];
  return {};
}

}  // namespace

#ifdef SCRNA_CUDA_ENABLED

Machine gpu_machine() {
  Machine machine = cpu_machine();
  cudaDeviceProp properties{};
  int driver = 0, runtime = 0;
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess ||
      cudaDriverGetVersion(&driver) != cudaSuccess || cudaRuntimeGetVersion(&runtime) != cudaSuccess)
    throw DeviceError("cannot read the properties of the GPU");
  const auto dotted = [](int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); };
  machine.name = properties.name;
  machine.compute_capability = fmt::format("{}.{}", properties.major, properties.minor);
  machine.num_multiprocessors = properties.multiProcessorCount;
  machine.memory_gib = static_cast<double>(properties.totalGlobalMem) / (1 << 30);
  machine.driver = find_in_file("/proc/driver/nvidia/version", R"(\s(\d+\.\d+(\.\d+)?)\s)");
  machine.cuda_driver = dotted(driver);
  machine.cuda_runtime = dotted(runtime);
  if (at::hasCUDA() && at::detail::getCUDAHooks().hasCuDNN()) {
    const long version = at::detail::getCUDAHooks().versionCuDNN();
    machine.cudnn = fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
  }
  return machine;
}

#else

Machine gpu_machine() { throw DeviceError("this program was built without CUDA"); }

#endif

Machine cpu_machine() {
  const std::string processor = find_in_file("/proc/cpuinfo", R"(^model name\s*:\s*(.*\S))");
  return {.name = processor.empty() ? "unknown processor" : processor,
          .num_threads = at::get_num_threads(),
          .cpu_vectors = kernels::cpu_vectors_name()};
}

}  // namespace scrna::bench
