#include "lib/ops/kernel_choice.h"

#include <algorithm>

#include <ATen/ops/empty.h>

namespace scrna::ops {

bool use_kernel(Implementation implementation, const char* operation, const std::string& missing) {
  SCRNA_CHECK(implementation != Implementation::kFlash, "{}: kFlash is an implementation of attention only",
              operation);
  if (implementation == Implementation::kComposed) return false;
  if (missing.empty()) return true;
  if (implementation == Implementation::kKernel)
    throw ConfigError("{}: a kernel was asked for, but {}; set the implementation to automatic or composed",
                      operation, missing);
  return false;
}

std::string unreadable_by_kernels(std::initializer_list<at::Tensor> tensors) {
#ifdef SCRNA_CUDA_ENABLED
  const at::Tensor* first = nullptr;
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    if (first == nullptr) first = &tensor;
    if (!tensor.is_cuda()) return fmt::format("it is for CUDA, and a tensor is on {}", tensor.device().str());
    if (tensor.device() != first->device())
      return fmt::format("tensors are on {} and {}", first->device().str(), tensor.device().str());
    if (!tensor.is_contiguous()) return "a tensor is not contiguous";
    if (reinterpret_cast<uintptr_t>(tensor.data_ptr()) % 16 != 0)
      return "a tensor does not begin at a multiple of 16 bytes";
  }
  return {};
#else
  static_cast<void>(tensors);
  return "this program was built without CUDA";
#endif
}

kernels::ElementType element_type(at::ScalarType type) {
  if (type == at::kFloat) return kernels::ElementType::kFloat32;
  return type == at::kBFloat16 ? kernels::ElementType::kBFloat16 : kernels::ElementType::kFloat16;
}

at::Tensor kernel_workspace(size_t bytes, const at::Tensor& like) {
  return at::empty({static_cast<int64_t>(std::max<size_t>(bytes, 1))}, like.options().dtype(at::kByte));
}

kernels::DropoutMask dropout_mask(const std::optional<CellDropout>& dropout) {
  if (!dropout) return {};
  const uint32_t threshold = dropout_threshold(dropout->site);
  if (threshold == 0) return {};
  return {.cu_seqlens = dropout->cu_seqlens.data_ptr<int32_t>(),
          .cell_ids = static_cast<const uint64_t*>(dropout->cell_ids.data_ptr()),
          .num_cells = dropout->cell_ids.numel(),
          .key = dropout_key(dropout->site),
          .threshold = threshold};
}

}  // namespace scrna::ops
