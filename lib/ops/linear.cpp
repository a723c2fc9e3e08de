#include "lib/ops/linear.h"

#include <optional>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_addmm_activation.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "lib/core/error.h"
#include "lib/ops/product.h"

namespace scrna::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Call : torch::CustomClassHolder {
  LinearWeights weights;
  std::function<at::Tensor(const at::Tensor&)> segment;  // of linear_of_recomputed

  [[nodiscard]] const at::Tensor& weight() const {
    return weights.compute_weight.defined() ? weights.compute_weight : weights.weight;
  }
  [[nodiscard]] const at::Tensor& bias() const {
    return weights.compute_weight.defined() ? weights.compute_bias : weights.bias;
  }
};

void check_parameter(const at::Tensor& parameter, const at::Tensor& copy, const at::Tensor& x,
                     const char* name) {
  SCRNA_CHECK(parameter.device() == x.device() && parameter.is_contiguous() && parameter.is_floating_point(),
              "linear: {} must be contiguous on {}", name, x.device().str());
  const at::Tensor& read = copy.defined() ? copy : parameter;
  SCRNA_CHECK(read.sizes() == parameter.sizes() && read.scalar_type() == x.scalar_type() &&
                  read.device() == x.device() && read.is_contiguous(),
              "linear: products of {} need {} in that type, contiguous, on {}",
              c10::toString(x.scalar_type()), name, x.device().str());
  const at::Tensor& gradient = parameter.grad();
  SCRNA_CHECK(!gradient.defined() || (gradient.sizes() == parameter.sizes() && gradient.is_contiguous() &&
                                      gradient.scalar_type() == parameter.scalar_type()),
              "linear: the gradient of {} must be contiguous and of its type", name);
}

void check(const at::Tensor& x, const LinearWeights& weights) {
  SCRNA_CHECK(x.dim() == 2 && x.is_contiguous() && x.is_floating_point(),
              "linear: x must be a contiguous floating-point [T, in]");
  SCRNA_CHECK(weights.weight.dim() == 2 && weights.weight.size(1) == x.size(1),
              "linear: weight must be [out, {}]", x.size(1));
  check_parameter(weights.weight, weights.compute_weight, x, "weight");
  if (!weights.bias.defined()) return;
  SCRNA_CHECK(weights.bias.dim() == 1 && weights.bias.numel() == weights.weight.size(0),
              "linear: bias must be [{}]", weights.weight.size(0));
  SCRNA_CHECK(weights.compute_weight.defined() == weights.compute_bias.defined(),
              "linear: weight and bias must both have a copy, or none");
  check_parameter(weights.bias, weights.compute_bias, x, "bias");
}

/// Calls add(sum) with the parameter's gradient, or with zeros that are then returned for autograd.
template <class Add>
at::Tensor add_gradient(const at::Tensor& parameter, Add add) {
  if (parameter.grad().defined()) {
    add(parameter.grad());
    return {};
  }
  const at::Tensor sum = at::zeros_like(parameter);
  add(sum);
  return sum;
}

at::Tensor product(const Call& call, const at::Tensor& x) {
  const at::Tensor weight_IO = call.weight().t();
  return call.weights.bias.defined() ? at::addmm(call.bias(), x, weight_IO) : at::mm(x, weight_IO);
}

/// {undefined, d_weight, d_bias} for autograd; what has a .grad was added there.
variable_list parameter_gradients(const Call& call, const at::Tensor& x, const at::Tensor& d_y) {
  variable_list gradients(3);
  const auto& [weight, bias, compute_weight, compute_bias] = call.weights;
  if (weight.requires_grad())
    gradients[1] = add_gradient(weight, [&](const at::Tensor& sum) { add_product(sum, d_y.t(), x); });
  if (bias.defined() && bias.requires_grad())
    gradients[2] = add_gradient(bias, [&](const at::Tensor& sum) { add_column_sums(sum, d_y); });
  return gradients;
}

// Weight and bias are arguments of both functions because autograd only sees tensors that are.
class LinearFunction : public torch::autograd::Function<LinearFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& /*weight*/,
                            const std::optional<at::Tensor>& /*bias*/, const c10::intrusive_ptr<Call>& call) {
    context->save_for_backward({x});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return product(*call, x);
  }

  static variable_list backward(AutogradContext* context, const variable_list& d_outputs) {
    const auto capsule = context->saved_data["call"].toCapsule();
    const Call& call = *static_cast<const Call*>(capsule.get());
    const at::Tensor d_y = d_outputs[0].contiguous();
    variable_list gradients = parameter_gradients(call, context->get_saved_variables()[0], d_y);
    if (context->needs_input_grad(0)) gradients[0] = at::mm(d_y, call.weight());
    gradients.emplace_back();  // of the call
    return gradients;
  }
};

class LinearOfRecomputedFunction : public torch::autograd::Function<LinearOfRecomputedFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& /*weight*/,
                            const std::optional<at::Tensor>& /*bias*/, const c10::intrusive_ptr<Call>& call) {
    context->save_for_backward({x});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    return product(*call, call->segment(x));
  }

  static variable_list backward(AutogradContext* context, const variable_list& d_outputs) {
    const auto capsule = context->saved_data["call"].toCapsule();
    const Call& call = *static_cast<const Call*>(capsule.get());
    const at::Tensor d_y = d_outputs[0].contiguous();
    const at::Tensor x = context->get_saved_variables()[0].detach().requires_grad_();
    at::Tensor inner;
    {
      const at::AutoGradMode recorded(true);
      inner = call.segment(x);
    }
    variable_list gradients = parameter_gradients(call, inner.detach(), d_y);
    torch::autograd::backward({inner}, {at::mm(d_y, call.weight())});
    gradients[0] = x.grad();
    gradients.emplace_back();  // of the call
    return gradients;
  }
};

std::optional<at::Tensor> given(const at::Tensor& x) { return x.defined() ? std::optional(x) : std::nullopt; }

}  // namespace

at::Tensor linear(const at::Tensor& x_TI, const LinearWeights& weights) {
  check(x_TI, weights);
  auto call = c10::make_intrusive<Call>();
  call->weights = weights;
  return LinearFunction::apply(x_TI, weights.weight, given(weights.bias), call);
}

at::Tensor linear_with_tanh_gelu(const at::Tensor& x_TI, const LinearWeights& weights) {
  check(x_TI, weights);
  SCRNA_CHECK(x_TI.is_cuda() && x_TI.scalar_type() == at::kBFloat16 && weights.bias.defined(),
              "linear_with_tanh_gelu: x must be bf16 on a GPU, and the layer must have a bias");
  const at::NoGradGuard no_grad;
  return at::_addmm_activation(weights.compute_bias, x_TI, weights.compute_weight.t(), 1, 1, /*use_gelu=*/true);
}

at::Tensor linear_of_recomputed(const std::function<at::Tensor(const at::Tensor&)>& segment,
                                const at::Tensor& x, const LinearWeights& weights) {
  SCRNA_CHECK(!at::GradMode::is_enabled() || x.requires_grad(),
              "linear_of_recomputed: x requires no gradient, so the segment's backward pass would never run");
  auto call = c10::make_intrusive<Call>();
  call->weights = weights;
  call->segment = [segment, weights](const at::Tensor& given_x) {
    at::Tensor inner = segment(given_x);
    check(inner, weights);
    return inner;
  };
  return LinearOfRecomputedFunction::apply(x, weights.weight, given(weights.bias), call);
}

}  // namespace scrna::ops
