// Activation recomputation (Chen et al., arXiv 1604.06174): a segment of the model keeps its inputs alone and
// runs again in the backward pass, so memory falls by what it would have saved, for one more forward pass of
// it. Dropout is a function of counters here (kernels/dropout.h) and every kernel is deterministic in its
// forward pass, so nothing but the inputs needs keeping and the gradients have the same bits as without.
#pragma once

#include <functional>

#include <torch/csrc/autograd/variable.h>

namespace scrna::ops {

/// A pure function of its tensors and of what it captured by value: it runs twice.
using Segment = std::function<torch::autograd::variable_list(const torch::autograd::variable_list&)>;

/// segment(inputs), recorded as one node of autograd that keeps `inputs` and `segment`. At least one input
/// must require a gradient when gradients are recorded, else InternalError: the gradients of the parameters
/// that the segment uses would be lost silently. Outputs must be new tensors.
torch::autograd::variable_list recomputed(const Segment& segment,
                                          const torch::autograd::variable_list& inputs);

}  // namespace scrna::ops
