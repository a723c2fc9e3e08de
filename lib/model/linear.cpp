#include "lib/model/linear.h"

#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>

namespace scrna::model {

at::Tensor Linear::operator()(const at::Tensor& x, at::ScalarType compute_type) const {
  return at::linear(x.to(compute_type), weight.to(compute_type), bias.to(compute_type));
}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  return at::layer_norm(x, {x.size(-1)}, weight, bias, epsilon, /*cudnn_enable=*/false);
}

}  // namespace scrna::model
