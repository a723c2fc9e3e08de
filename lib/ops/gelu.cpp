#include "lib/ops/gelu.h"

#include <optional>
#include <string>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <torch/csrc/autograd/custom_function.h>

#include "lib/core/error.h"
#include "lib/ops/kernel_choice.h"

#ifdef SCRNA_CUDA_ENABLED
#include "kernels/gelu_cuda.h"
#endif

namespace scrna::ops {
namespace {

void check(const at::Tensor& z, const at::Tensor& bias) {
  SCRNA_CHECK(z.dim() == 2 && z.is_contiguous() && z.is_floating_point(),
              "bias_gelu: z must be a contiguous floating-point [T, F]");
  const at::ScalarType type = z.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  SCRNA_CHECK(!bias.defined() || (bias.dim() == 1 && bias.numel() == z.size(1) &&
                                  bias.scalar_type() == type && bias.device() == z.device()),
              "bias_gelu: bias must be {} [{}] on {}", c10::toString(type), z.size(1), z.device().str());
}

#ifdef SCRNA_CUDA_ENABLED

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

kernels::BiasGelu kernel_call(const at::Tensor& z, const at::Tensor& bias) {
  return {.num_rows = z.size(0),
          .width = z.size(1),
          .element_type = element_type(z.scalar_type()),
          .z = z.data_ptr(),
          .bias = bias.defined() ? bias.data_ptr<float>() : nullptr};
}

std::string missing_for_kernel(const at::Tensor& z, const at::Tensor& bias) {
  if (z.scalar_type() == at::kDouble) return "it takes fp32 and bf16";
  const std::string unreadable = unreadable_by_kernels({z, bias});
  if (!unreadable.empty()) return unreadable;
  const char* reason = kernels::bias_gelu_unsupported(kernel_call(z, bias));
  return reason == nullptr ? std::string() : reason;
}

class BiasGeluFunction : public torch::autograd::Function<BiasGeluFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& z,
                            const std::optional<at::Tensor>& bias) {
    const at::Tensor y = at::empty_like(z);
    const at::Tensor given = bias.value_or(at::Tensor());
    launch_on_stream(z, "bias_gelu forward", [&](cudaStream_t stream) {
      return kernels::bias_gelu_forward_cuda(kernel_call(z, given), y.data_ptr(), stream);
    });
    context->save_for_backward({z, given});
    context->saved_data["bias_gradient"] = given.defined() && given.requires_grad();
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& d_outputs) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& z = saved[0];
    const at::Tensor d_y = d_outputs[0].contiguous();
    const at::Tensor d_z = at::empty_like(z);
    const kernels::BiasGelu call = kernel_call(z, saved[1]);
    at::Tensor d_bias, partials;
    if (context->saved_data["bias_gradient"].toBool()) {
      d_bias = at::empty_like(saved[1]);
      partials = kernel_workspace(kernels::bias_gelu_workspace_bytes(call), z);
    }
    launch_on_stream(z, "bias_gelu backward", [&](cudaStream_t stream) {
      return kernels::bias_gelu_backward_cuda(
          call, d_y.data_ptr(), d_z.data_ptr(), d_bias.defined() ? d_bias.data_ptr<float>() : nullptr,
          partials.defined() ? static_cast<float*>(partials.data_ptr()) : nullptr, stream);
    });
    return {d_z, d_bias};
  }
};

#endif

}  // namespace

at::Tensor bias_gelu(const at::Tensor& z_TF, const at::Tensor& bias_F, Implementation implementation) {
  check(z_TF, bias_F);
#ifdef SCRNA_CUDA_ENABLED
  if (use_kernel(implementation, "bias_gelu", missing_for_kernel(z_TF, bias_F)))
    return BiasGeluFunction::apply(z_TF, bias_F.defined() ? std::optional<at::Tensor>(bias_F) : std::nullopt);
#else
  use_kernel(implementation, "bias_gelu", unreadable_by_kernels({}));
#endif
  return at::gelu(bias_F.defined() ? z_TF.add(bias_F.to(z_TF.scalar_type())) : z_TF);
}

}  // namespace scrna::ops
