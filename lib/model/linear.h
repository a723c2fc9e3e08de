// The two parameterised maps every block is made of, as plain structs of tensors: a linear map in the compute
// type and a LayerNorm in fp32. torch::nn modules are not used: the model is a flat list of named parameters
// (lib/ops/parameters.h), and torch/torch.h costs 13 s of compile time per file.
#pragma once

#include <ATen/core/Tensor.h>

namespace scrna::model {

struct Linear {
  at::Tensor weight;  // [out, in] fp32
  at::Tensor bias;    // [out] fp32
  /// x [N, in] of any floating type -> [N, out] in compute_type.
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x, at::ScalarType compute_type) const;
};

struct LayerNorm {
  at::Tensor weight;  // [D] fp32
  at::Tensor bias;    // [D] fp32
  double epsilon = 1e-5;
  /// x [N, D] fp32 -> [N, D] fp32
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x) const;
};

}  // namespace scrna::model
