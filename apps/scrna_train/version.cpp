// --version: enough to reproduce a run or to file a useful report. Libraries are asked at run time where they
// can answer: the ones that are loaded may differ from the ones that were compiled against.
#include <ATen/Version.h>

#include "apps/scrna_train/commands.h"
#include "kernels/attention_cpu.h"
#include "lib/data/hdf5_version.h"
#include "lib/dist/communicator.h"
#include "revision.h"

#ifdef SCRNA_CUDA_TOOLKIT
#include <cuda_runtime_api.h>
#endif

namespace scrna::app {
namespace {

#ifdef SCRNA_CUDA_TOOLKIT
std::string dotted(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

std::string gpus_found() {
  int driver = 0, num_devices = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no NVIDIA driver found";
  if (const cudaError_t status = cudaGetDeviceCount(&num_devices); status != cudaSuccess) {
    return fmt::format("driver for CUDA {}, no usable GPU ({})", dotted(driver), cudaGetErrorString(status));
  }
  std::string text = fmt::format("driver for CUDA {}", dotted(driver));
  for (int device = 0; device < num_devices; ++device) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) continue;
    text += fmt::format(", GPU {}: {} ({:.0f} GiB)", device, properties.name,
                        static_cast<double>(properties.totalGlobalMem) / (1 << 30));
  }
  return text;
}

std::string cuda() {
  int runtime = 0;
  cudaRuntimeGetVersion(&runtime);
  return fmt::format("built with {}, runtime {}; {}", SCRNA_CUDA_TOOLKIT, dotted(runtime), gpus_found());
}
#else
std::string cuda() { return "not built in"; }
#endif

}  // namespace

// LibTorch names its version only among its build settings.
std::string libtorch_version() {
  const std::string settings = at::show_config();
  constexpr std::string_view kKey = "TORCH_VERSION=";
  const std::size_t key = settings.find(kKey);
  if (key == std::string::npos) return "unknown version";
  const std::size_t begin = key + kKey.size();
  return settings.substr(begin, settings.find_first_of(", \n", begin) - begin);
}

std::string program_version() { return fmt::format("{} (revision {})", SCRNA_VERSION, SCRNA_REVISION); }

std::string version_text() {
  return fmt::format(
      "scrna-train {}\n"
      "compiler   {}\n"
      "LibTorch   {}\n"
      "CUDA       {}\n"
      "HDF5       {}\n"
      "CPU code   {}\n"
      "processes  {}\n",
      program_version(), SCRNA_COMPILER, libtorch_version(), cuda(), data::hdf5_version(),
      kernels::cpu_vectors_name(), dist::engines());
}

}  // namespace scrna::app
