// The linear map y = x W^T + b with autograd, for weights that live in a ParameterSet: products read the copy
// in the compute type, and the gradients of W and b are added into the parameters' .grad, the views of the
// flat fp32 buffer, by the products themselves (beta = 1, fp32 sums). at::linear with casts would read and
// write every weight twice a pass, make each gradient in bf16, round it there, and add it in a further pass.
// Saved for the backward pass: x.
#pragma once

#include <functional>

#include <ATen/core/Tensor.h>

namespace scrna::ops {

struct LinearWeights {
  at::Tensor weight;          // [out, in] fp32 (or fp64): the parameter
  at::Tensor bias;            // [out] like weight, or undefined: none, or added by the operation that follows
  at::Tensor compute_weight;  // [out, in] copy in x's type; undefined: x has the type of weight
  at::Tensor compute_bias;    // [out] copy in x's type, with bias and compute_weight
};

/// x: [T, in] contiguous -> [T, out] of x's type. Gradients go where the parameter has a .grad, which must be
/// a contiguous tensor of the parameter's type; autograd gets those of parameters that have none. Throws
/// InternalError when the tensors break the contract.
at::Tensor linear(const at::Tensor& x_TI, const LinearWeights& weights);

/// gelu(x W^T + b) by its approximation 0.5 v (1 + tanh(sqrt(2 / pi) (v + 0.044715 v^3))), at most 4.8e-4 from the
/// exact form (Hendrycks & Gimpel, arXiv 1606.08415), in the product's own epilogue (cuBLASLt). No gradients. x [T, in] in
/// bf16 on a GPU, weights with bias and copies; InternalError otherwise.
at::Tensor linear_with_tanh_gelu(const at::Tensor& x_TI, const LinearWeights& weights);

/// linear(segment(x), weights), but x is kept for the backward pass and segment(x) computed again there, to
/// the same bits; the product with the weights is not. `segment` is a pure function of x and of what it
/// captured by value; x must require a gradient when gradients are recorded (InternalError: see
/// recomputed()).
at::Tensor linear_of_recomputed(const std::function<at::Tensor(const at::Tensor&)>& segment,
                                const at::Tensor& x, const LinearWeights& weights);

}  // namespace scrna::ops
