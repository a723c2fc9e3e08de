// Activation recomputation (Chen et al., arXiv 1604.06174): a segment of the model keeps its inputs alone and
// runs again in the backward pass, so memory falls by what it would have saved, for one more forward pass of
// it. Dropout is a function of counters here (kernels/dropout.h) and every kernel is deterministic in its
// forward pass, so nothing but the inputs needs keeping and the gradients have the same bits as without
// (on a GPU: where attention's backward pass is deterministic, lib/ops/attention.h).
#pragma once

#include <functional>

#include <torch/csrc/autograd/variable.h>

namespace scrna::ops {

/// A pure function of its tensors (the second may be undefined) and of what it captured by value: it runs
/// twice. The second run may leave out results at the end of the list that need no gradient.
using Segment = std::function<torch::autograd::variable_list(const at::Tensor&, const at::Tensor&)>;

/// segment(first, second), recorded as one node of autograd that keeps the two and `segment`. One of them
/// must require a gradient when gradients are recorded, else InternalError: the gradients of the parameters
/// that the segment uses would be lost silently. Results must be new tensors.
torch::autograd::variable_list recomputed(const Segment& segment, const at::Tensor& first,
                                          const at::Tensor& second = {});

}  // namespace scrna::ops
