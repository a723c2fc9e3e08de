#include "lib/ops/residual_norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "lib/core/error.h"
#include "lib/ops/kernel_choice.h"

#ifdef SCRNA_CUDA_ENABLED
#include "kernels/residual_norm_cuda.h"
#endif

namespace scrna::ops {
namespace {

#ifdef SCRNA_CUDA_ENABLED
static_assert(kMaxFusedNormWidth == kernels::kMaxResidualNormWidth);
#endif

void check(const at::Tensor& h, const at::Tensor& x, const LayerNormWeights& weights,
           const std::optional<CellDropout>& dropout) {
  SCRNA_CHECK(h.dim() == 2 && h.is_contiguous() && h.is_floating_point(),
              "residual_norm: h must be a contiguous floating-point [T, D]");
  SCRNA_CHECK(!x.defined() || (x.sizes() == h.sizes() && x.is_contiguous() && x.device() == h.device()),
              "residual_norm: x must be contiguous, of h's shape and on {}", h.device().str());
  const at::ScalarType type = h.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  for (const at::Tensor& weight : {weights.gamma, weights.beta})
    SCRNA_CHECK(weight.dim() == 1 && weight.numel() == h.size(1) && weight.scalar_type() == type &&
                    weight.device() == h.device(),
                "residual_norm: gamma and beta must be {} [{}] on {}", c10::toString(type), h.size(1),
                h.device().str());
  if (dropout) check_cells("residual_norm", h, dropout->cu_seqlens, dropout->cell_ids);
}

ResidualNorm composed(const at::Tensor& h, const at::Tensor& x, const LayerNormWeights& weights,
                      at::ScalarType branch_type, const std::optional<CellDropout>& dropout,
                      Implementation implementation) {
  at::Tensor sum = h;
  if (x.defined()) {
    const at::Tensor kept =
        dropout ? ops::dropout(x, dropout->cu_seqlens, dropout->cell_ids, dropout->site, implementation) : x;
    sum = h.add(kept).to(h.scalar_type());
  }
  const at::Tensor y = at::layer_norm(sum.to(weights.gamma.scalar_type()), {h.size(1)}, weights.gamma,
                                      weights.beta, weights.epsilon, /*cudnn_enable=*/false);
  return {sum, y.to(branch_type)};
}

#ifdef SCRNA_CUDA_ENABLED

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Call : torch::CustomClassHolder {
  std::optional<CellDropout> dropout;
  at::ScalarType branch_type = at::kFloat;
  double epsilon = 0;

  [[nodiscard]] kernels::ResidualNormShape shape(const at::Tensor& h) const {
    return {.num_rows = h.size(0),
            .width = h.size(1),
            .stream_type = element_type(h.scalar_type()),
            .branch_type = element_type(branch_type),
            .mask = dropout_mask(dropout)};
  }
};

std::string missing_for_kernel(const at::Tensor& h, const at::Tensor& x, const LayerNormWeights& weights,
                               const Call& call) {
  if (x.defined() && x.scalar_type() != call.branch_type) return "x and y have different types";
  const std::string unreadable = unreadable_by_kernels({h, x, weights.gamma, weights.beta});
  if (!unreadable.empty()) return unreadable;
  const char* reason = kernels::residual_norm_unsupported(call.shape(h));
  return reason == nullptr ? std::string() : reason;
}

/// Outputs {h_out, y}, or {y} without x.
class ResidualNormFunction : public torch::autograd::Function<ResidualNormFunction> {
 public:
  static variable_list forward(AutogradContext* context, const at::Tensor& h,
                               const std::optional<at::Tensor>& x, const at::Tensor& gamma,
                               const at::Tensor& beta, const c10::intrusive_ptr<Call>& call) {
    const at::Tensor h_out = x ? at::empty_like(h) : h;
    const at::Tensor y = at::empty(h.sizes(), h.options().dtype(call->branch_type));
    const at::Tensor mean = at::empty({h.size(0)}, gamma.options());
    const at::Tensor rstd = at::empty({h.size(0)}, gamma.options());
    launch_on_stream(h, "residual_norm forward", [&](cudaStream_t stream) {
      return kernels::residual_norm_forward_cuda({.shape = call->shape(h),
                                                  .h = h.data_ptr(),
                                                  .x = x ? x->data_ptr() : nullptr,
                                                  .gamma = gamma.data_ptr<float>(),
                                                  .beta = beta.data_ptr<float>(),
                                                  .epsilon = static_cast<float>(call->epsilon),
                                                  .h_out = h_out.data_ptr(),
                                                  .y = y.data_ptr(),
                                                  .mean = mean.data_ptr<float>(),
                                                  .rstd = rstd.data_ptr<float>()},
                                                 stream);
    });
    context->save_for_backward({h_out, gamma, mean, rstd});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    context->saved_data["added"] = x.has_value();
    context->set_materialize_grads(false);
    return x ? variable_list{h_out, y} : variable_list{y};
  }

  static variable_list backward(AutogradContext* context, const variable_list& d_outputs) {
    const auto capsule = context->saved_data["call"].toCapsule();
    const Call& call = *static_cast<const Call*>(capsule.get());
    const bool added = context->saved_data["added"].toBool();
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& h = saved[0];
    at::Tensor d_h_out = added ? d_outputs[0] : at::Tensor();
    at::Tensor d_y = d_outputs.back();
    if (d_h_out.defined()) d_h_out = d_h_out.contiguous();
    d_y = d_y.defined() ? d_y.contiguous() : at::zeros(h.sizes(), h.options().dtype(call.branch_type));
    const at::Tensor d_h = at::empty_like(h);
    const at::Tensor d_x = added ? at::empty_like(d_y) : at::Tensor();
    const at::Tensor d_gamma = at::empty_like(saved[1]);
    const at::Tensor d_beta = at::empty_like(saved[1]);
    const kernels::ResidualNormShape shape = call.shape(h);
    const at::Tensor partials = kernel_workspace(kernels::residual_norm_workspace_bytes(shape), h);
    launch_on_stream(h, "residual_norm backward", [&](cudaStream_t stream) {
      return kernels::residual_norm_backward_cuda(
          {.shape = shape,
           .d_y = d_y.data_ptr(),
           .d_h_out = d_h_out.defined() ? d_h_out.data_ptr() : nullptr,
           .h_out = h.data_ptr(),
           .gamma = saved[1].data_ptr<float>(),
           .mean = saved[2].data_ptr<float>(),
           .rstd = saved[3].data_ptr<float>(),
           .d_h = d_h.data_ptr(),
           .d_x = added ? d_x.data_ptr() : nullptr,
           .d_gamma = d_gamma.data_ptr<float>(),
           .d_beta = d_beta.data_ptr<float>(),
           .partials = static_cast<float*>(partials.data_ptr())},
          stream);
    });
    return {d_h, d_x, d_gamma, d_beta, at::Tensor()};
  }
};

#endif

}  // namespace

ResidualNorm residual_norm(const at::Tensor& h_TD, const at::Tensor& x_TD, const LayerNormWeights& weights,
                           at::ScalarType branch_type, const std::optional<CellDropout>& dropout,
                           Implementation implementation) {
  check(h_TD, x_TD, weights, dropout);
#ifdef SCRNA_CUDA_ENABLED
  auto call = c10::make_intrusive<Call>();
  call->dropout = dropout;
  call->branch_type = branch_type;
  call->epsilon = weights.epsilon;
  if (use_kernel(implementation, "residual_norm", missing_for_kernel(h_TD, x_TD, weights, *call))) {
    using OptionalTensor = std::optional<at::Tensor>;
    const variable_list outputs = ResidualNormFunction::apply(
        h_TD, x_TD.defined() ? OptionalTensor(x_TD) : std::nullopt, weights.gamma, weights.beta, call);
    return {x_TD.defined() ? outputs[0] : h_TD, outputs.back()};
  }
#else
  use_kernel(implementation, "residual_norm", unreadable_by_kernels({}));
#endif
  return composed(h_TD, x_TD, weights, branch_type, dropout, implementation);
}

}  // namespace scrna::ops
