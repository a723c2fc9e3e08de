#include "lib/ops/product.h"

#include <string>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/sum.h>

#include "lib/core/error.h"
#include "lib/ops/kernel_choice.h"

#ifdef SCRNA_CUDA_ENABLED
#include "kernels/bias_gradient_cuda.h"
#endif

namespace scrna::ops {
namespace {

#ifdef SCRNA_CUDA_ENABLED
kernels::BiasGradient kernel_call(const at::Tensor& sum, const at::Tensor& x) {
  return {.num_rows = x.size(0),
          .width = x.size(1),
          .element_type = element_type(x.scalar_type()),
          .d_y = x.data_ptr(),
          .d_bias = static_cast<float*>(sum.data_ptr())};
}
#endif

std::string missing_for_kernel(const at::Tensor& sum, const at::Tensor& x) {
  if (x.scalar_type() == at::kDouble) return "it takes fp32 and bf16";
  const std::string unreadable = unreadable_by_kernels({sum, x});
#ifdef SCRNA_CUDA_ENABLED
  if (unreadable.empty()) {
    const char* reason = kernels::bias_gradient_unsupported(kernel_call(sum, x));
    if (reason != nullptr) return reason;
  }
#endif
  return unreadable;
}

}  // namespace

void add_product(const at::Tensor& sum_MN, const at::Tensor& a_MK, const at::Tensor& b_KN) {
  const at::NoGradGuard no_grad;
  at::Tensor sum = sum_MN;
  if (sum.scalar_type() == b_KN.scalar_type())
    sum.addmm_(a_MK, b_KN);
  else if (b_KN.is_cuda())
    at::addmm_out(sum, sum, a_MK, b_KN, sum.scalar_type());
  else
    sum.addmm_(a_MK.to(sum.scalar_type()), b_KN.to(sum.scalar_type()));
}

void add_column_sums(const at::Tensor& sum_N, const at::Tensor& x_TN, Implementation implementation) {
  const at::ScalarType type = x_TN.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  SCRNA_CHECK(x_TN.dim() == 2 && x_TN.is_contiguous() && x_TN.is_floating_point(),
              "add_column_sums: x must be a contiguous floating-point [T, N]");
  SCRNA_CHECK(sum_N.dim() == 1 && sum_N.numel() == x_TN.size(1) && sum_N.scalar_type() == type &&
                  sum_N.is_contiguous() && sum_N.device() == x_TN.device(),
              "add_column_sums: the sums must be contiguous {} [{}] on {}", c10::toString(type), x_TN.size(1),
              x_TN.device().str());
  const at::NoGradGuard no_grad;
  if (use_kernel(implementation, "add_column_sums", missing_for_kernel(sum_N, x_TN))) {
#ifdef SCRNA_CUDA_ENABLED
    kernels::BiasGradient call = kernel_call(sum_N, x_TN);
    const at::Tensor partials = kernel_workspace(kernels::bias_gradient_workspace_bytes(call), x_TN);
    launch_on_stream(x_TN, "add_column_sums", [&](cudaStream_t stream) {
      return kernels::bias_gradient_cuda(call, static_cast<float*>(partials.data_ptr()), stream);
    });
    return;
#endif
  }
  at::Tensor sum = sum_N;
  sum.add_(at::sum(x_TN, {0}, /*keepdim=*/false, type));
}

}  // namespace scrna::ops
