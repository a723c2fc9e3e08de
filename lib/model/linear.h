// The two parameterised maps every block is made of, as plain structs of tensors: what the operations of
// lib/ops take. torch::nn modules are not used: the model is a flat list of named parameters
// (lib/ops/parameters.h), and torch/torch.h costs 13 s of compile time per file.
#pragma once

#include <ATen/core/Tensor.h>

#include "lib/ops/linear.h"
#include "lib/ops/parameters.h"
#include "lib/ops/residual_norm.h"

namespace scrna::model {

using Linear = ops::LinearWeights;        // weight [out, in], bias [out] fp32, and their copies for products
using LayerNorm = ops::LayerNormWeights;  // gamma [D], beta [D] fp32

/// Points the layer's copies at the set's compute_values(): after they were made anew.
void use_compute_values(Linear& layer, const ops::ParameterSet& parameters);

/// x [T, in] -> [T, out] without the bias, for where the next operation adds it.
at::Tensor linear_without_bias(const at::Tensor& x, const Linear& layer);

}  // namespace scrna::model
