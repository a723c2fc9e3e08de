#include "lib/ops/recompute.h"

#include <optional>

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "lib/core/error.h"

namespace scrna::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Call : torch::CustomClassHolder {
  Segment segment;
};

class RecomputedFunction : public torch::autograd::Function<RecomputedFunction> {
 public:
  // Autograd sees tensors that are arguments, not those in a list.
  static variable_list forward(AutogradContext* context, const at::Tensor& first,
                               const std::optional<at::Tensor>& second,
                               const c10::intrusive_ptr<Call>& call) {
    const at::Tensor given = second.value_or(at::Tensor());
    context->save_for_backward({first, given});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    context->set_materialize_grads(false);
    return call->segment(first, given);
  }

  static variable_list backward(AutogradContext* context, const variable_list& d_outputs) {
    const auto capsule = context->saved_data["call"].toCapsule();
    const Call& call = *static_cast<const Call*>(capsule.get());
    const auto leaf = [](const at::Tensor& x) {
      return x.defined() ? x.detach().requires_grad_(x.requires_grad()) : x;
    };
    const variable_list saved = context->get_saved_variables();
    const at::Tensor first = leaf(saved[0]), second = leaf(saved[1]);
    variable_list outputs;
    {
      const at::AutoGradMode recorded(true);
      outputs = call.segment(first, second);
    }
    variable_list reached, gradients;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!d_outputs[i].defined()) continue;
      reached.push_back(outputs[i]);
      gradients.push_back(d_outputs[i]);
    }
    torch::autograd::backward(reached, gradients);
    return {first.grad(), second.defined() ? second.grad() : at::Tensor(), at::Tensor()};
  }
};

}  // namespace

variable_list recomputed(const Segment& segment, const at::Tensor& first, const at::Tensor& second) {
  if (!at::GradMode::is_enabled()) return segment(first, second);
  SCRNA_CHECK(first.requires_grad() || (second.defined() && second.requires_grad()),
              "recomputed: no input requires a gradient, so the segment's backward pass would never run");
  auto call = c10::make_intrusive<Call>();
  call->segment = segment;
  return RecomputedFunction::apply(first, second.defined() ? std::optional(second) : std::nullopt, call);
}

}  // namespace scrna::ops
