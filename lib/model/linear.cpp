#include "lib/model/linear.h"

namespace scrna::model {

void use_compute_values(Linear& layer, const ops::ParameterSet& parameters) {
  const bool has_copy = parameters.compute_type() != at::kFloat;
  const auto copy_of = [&](const at::Tensor& parameter) {
    return has_copy ? parameters.slice(parameters.compute_values(), parameters.index_of(parameter))
                    : at::Tensor();
  };
  layer.compute_weight = copy_of(layer.weight);
  layer.compute_bias = copy_of(layer.bias);
}

at::Tensor linear_without_bias(const at::Tensor& x, const Linear& layer) {
  return ops::linear(
      x, {.weight = layer.weight, .bias = {}, .compute_weight = layer.compute_weight, .compute_bias = {}});
}

}  // namespace scrna::model
