#include "lib/ops/recompute.h"

#include <algorithm>

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
  static variable_list forward(AutogradContext* context, const variable_list& inputs,
                               const c10::intrusive_ptr<Call>& call) {
    context->save_for_backward(inputs);
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    context->set_materialize_grads(false);
    return call->segment(inputs);
  }

  static variable_list backward(AutogradContext* context, const variable_list& d_outputs) {
    const auto capsule = context->saved_data["call"].toCapsule();
    const Call& call = *static_cast<const Call*>(capsule.get());
    variable_list inputs;
    for (const at::Tensor& saved : context->get_saved_variables())
      inputs.push_back(saved.detach().requires_grad_(saved.requires_grad()));
    variable_list outputs;
    {
      const at::AutoGradMode recorded(true);
      outputs = call.segment(inputs);
    }
    variable_list reached, gradients;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!d_outputs[i].defined()) continue;
      reached.push_back(outputs[i]);
      gradients.push_back(d_outputs[i]);
    }
    torch::autograd::backward(reached, gradients);
    variable_list d_inputs;
    for (const at::Tensor& input : inputs) d_inputs.push_back(input.grad());
    d_inputs.emplace_back();  // of the call
    return d_inputs;
  }
};

}  // namespace

variable_list recomputed(const Segment& segment, const variable_list& inputs) {
  if (!at::GradMode::is_enabled()) return segment(inputs);
  SCRNA_CHECK(std::any_of(inputs.begin(), inputs.end(), [](const at::Tensor& x) { return x.requires_grad(); }),
              "recomputed: no input requires a gradient, so the segment's backward pass would never run");
  auto call = c10::make_intrusive<Call>();
  call->segment = segment;
  return RecomputedFunction::apply(inputs, call);
}

}  // namespace scrna::ops
