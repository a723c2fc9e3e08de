// What the fused operations share on their way to kernels/: whether a kernel serves a call, and the launch on
// the current stream. On the CPU their composed twins are the implementation; the kernels are CUDA only.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

#include <ATen/core/Tensor.h>

#include "kernels/dropout.h"
#include "lib/core/error.h"
#include "lib/ops/attention.h"
#include "lib/ops/dropout.h"

#ifdef SCRNA_CUDA_ENABLED
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace scrna::ops {

/// Automatic: the kernel unless something is missing. Throws ConfigError when the kernel was asked for and
/// `missing` says why it cannot be.
bool use_kernel(Implementation implementation, const char* operation, const std::string& missing);

/// Why no kernel can read these tensors (undefined ones are skipped): not on one CUDA device, not contiguous,
/// or rows not at multiples of 16 bytes. Empty: it can.
std::string unreadable_by_kernels(std::initializer_list<at::Tensor> tensors);

/// fp16 for every type that no kernel takes, too: their *_unsupported functions then say what they take.
kernels::ElementType element_type(at::ScalarType type);

/// Scratch memory from LibTorch's allocator, at least one byte.
at::Tensor kernel_workspace(size_t bytes, const at::Tensor& like);

/// The same mask as ops::dropout at that place; all zero when nothing is dropped.
kernels::DropoutMask dropout_mask(const std::optional<CellDropout>& dropout);

#ifdef SCRNA_CUDA_ENABLED
/// Runs launch(stream) on the device of `like`; throws DeviceError when it fails.
template <class Launch>
void launch_on_stream(const at::Tensor& like, const char* operation, Launch launch) {
  const c10::cuda::CUDAGuard on_device(like.device());
  const cudaError_t status = launch(static_cast<cudaStream_t>(c10::cuda::getCurrentCUDAStream()));
  if (status != cudaSuccess)
    throw DeviceError("{} on {}: {}", operation, like.device().str(), cudaGetErrorString(status));
}
#endif

}  // namespace scrna::ops
