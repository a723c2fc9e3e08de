// One optimizer step over flat fp32 buffers without the host: squared gradient norms per layer, the decision
// (clipping factor, bias corrections, or no step at all when something is not finite), and AdamW (Loshchilov
// & Hutter, arXiv 1711.05101) with the bf16 copy of the weights written in the same pass.
//
//   g <- factor g;  w <- w - rate decay w;  m <- m + (1 - b1)(g - m);  v <- b2 v + (1 - b2) g^2
//   w <- w - rate / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + epsilon)
//
// Buffers are rows of 1,024 elements; a row belongs to one parameter. Bytes per element: 4 for the norms, 28
// for the step, 2 for the copy. Everything is asynchronous on a stream, allocates nothing and is bitwise
// reproducible.
#pragma once

#include <cstdint>

#include <cuda_runtime_api.h>

namespace scrna::kernels {

inline constexpr int64_t kFlatRow = 1024;  // elements

struct LayerNorms {
  const float* gradients = nullptr;  // [num_rows * kFlatRow], 16-byte aligned
  int64_t num_rows = 0;
  const int64_t* row_offsets = nullptr;  // [num_parameters + 1] first row of each parameter, ascending
  const int32_t* layer_of = nullptr;     // [num_parameters]
  int64_t num_parameters = 0;
  int64_t num_layers = 0;
  float* row_squares = nullptr;  // [num_rows] workspace
  double* squares = nullptr;     // [num_layers] sum of squares of each layer
};

struct AdamWSettings {
  double learning_rate = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double clip_norm = 0;  // 0: never clip
};

/// What the deciding kernel leaves for the step and for whoever reports it.
enum AdamWControl : int {
  kControlNorm,          // global L2 norm before clipping
  kControlFactor,        // gradients are multiplied with it
  kControlApplied,       // 1; 0: the norm or the loss is not finite, nothing was changed
  kControlStepSize,      // rate / (1 - b1^t)
  kControlRootOfSecond,  // sqrt(1 - b2^t)
  kControlSize
};

struct AdamWDecision {
  AdamWSettings settings;
  const double* squares = nullptr;  // [num_layers]
  int64_t num_layers = 0;
  const float* loss = nullptr;     // [1] or null: what must be finite besides the norm
  int64_t* num_updates = nullptr;  // [1] t, raised by one when the step is applied
  double* control = nullptr;       // [kControlSize]
};

struct AdamWStep {
  AdamWSettings settings;
  int64_t num_rows = 0;
  int64_t num_decayed_rows = 0;      // the first ones are subject to weight decay
  const double* control = nullptr;   // [kControlSize]
  const float* gradients = nullptr;  // all [num_rows * kFlatRow], 16-byte aligned
  float* values = nullptr;
  float* mean = nullptr;
  float* squared_mean = nullptr;
  void* bfloat16_copy = nullptr;  // of the values; null: none
};

cudaError_t layer_norms_cuda(const LayerNorms& call, cudaStream_t stream);
cudaError_t adamw_decide_cuda(const AdamWDecision& call, cudaStream_t stream);
cudaError_t adamw_step_cuda(const AdamWStep& call, cudaStream_t stream);

}  // namespace scrna::kernels
