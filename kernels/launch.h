// Launching a persistent kernel. On Hopper: one block per multiprocessor, most of its shared memory, started
// while the kernel before it (the planner) still runs; the kernel itself waits for that one (device/tma.h,
// wait_for_previous_kernel). Elsewhere: some blocks per multiprocessor, started when the kernel before has
// ended.
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

/// The size of the grid, and the kernel allowed to use its shared memory.
template <class Params>
cudaError_t prepare_persistent(void (*kernel)(Params), size_t shared_bytes, int blocks_per_multiprocessor,
                               int64_t max_blocks, dim3& grid) {
  int device = 0;
  int num_multiprocessors = 0;
  SCRNA_CUDA_TRY(cudaGetDevice(&device));
  SCRNA_CUDA_TRY(cudaDeviceGetAttribute(&num_multiprocessors, cudaDevAttrMultiProcessorCount, device));
  SCRNA_CUDA_TRY(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(shared_bytes)));
  const int64_t blocks = int64_t{num_multiprocessors} * blocks_per_multiprocessor;
  grid = dim3(static_cast<unsigned>(std::min(blocks, max_blocks)));
  return cudaSuccess;
}

/// Where fewer blocks fit on a multiprocessor than asked for, the last ones start late and find no tiles.
template <class Params>
cudaError_t launch_blocks(void (*kernel)(Params), const Params& params, int num_threads, size_t shared_bytes,
                          int blocks_per_multiprocessor, int64_t max_blocks, cudaStream_t stream) {
  dim3 grid;
  SCRNA_CUDA_TRY(prepare_persistent(kernel, shared_bytes, blocks_per_multiprocessor, max_blocks, grid));
  kernel<<<grid, static_cast<unsigned>(num_threads), shared_bytes, stream>>>(params);
  return cudaGetLastError();
}

template <class Params>
cudaError_t launch_persistent(void (*kernel)(Params), const Params& params, int num_threads,
                              size_t shared_bytes, int64_t max_blocks, cudaStream_t stream) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  SCRNA_CUDA_TRY(prepare_persistent(kernel, shared_bytes, 1, max_blocks, config.gridDim));
  config.blockDim = dim3(static_cast<unsigned>(num_threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, params);
}

}  // namespace scrna::kernels
