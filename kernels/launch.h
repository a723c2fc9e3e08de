// Launching a persistent kernel: one block per multiprocessor, most of its shared memory, started while the
// kernel before it (the planner) still runs; the kernel itself waits for that one (device/tma.h,
// wait_for_previous_kernel).
#pragma once

#include <algorithm>
#include <cstdint>

#include <cuda_runtime.h>

#define SCRNA_CUDA_TRY(call)                            \
  do {                                                  \
    const cudaError_t scrna_error = (call);             \
    if (scrna_error != cudaSuccess) return scrna_error; \
  } while (false)

namespace scrna::kernels {

/// Of one block on compute capability 9.0.
inline constexpr size_t kMaxSharedBytes = 232448;

template <class Params>
cudaError_t launch_persistent(void (*kernel)(Params), const Params& params, int num_threads,
                              size_t shared_bytes, int64_t max_blocks, cudaStream_t stream) {
  int device = 0;
  int num_multiprocessors = 0;
  SCRNA_CUDA_TRY(cudaGetDevice(&device));
  SCRNA_CUDA_TRY(cudaDeviceGetAttribute(&num_multiprocessors, cudaDevAttrMultiProcessorCount, device));
  SCRNA_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(shared_bytes)));
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(std::min<int64_t>(num_multiprocessors, max_blocks)));
  config.blockDim = dim3(static_cast<unsigned>(num_threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, params);
}

}  // namespace scrna::kernels
