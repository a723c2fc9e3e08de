// Norms: a warp per row, eight 16-byte loads per lane, squares in fp32 inside a lane, fp64 across lanes; then
// a block per layer adds its rows in fp64. (A square above 3.4e38 becomes infinite, and the step is not
// applied: as with LibTorch's norm.) Step: a block of 256 threads per row, four elements per thread.
#include <cuda_bf16.h>

#include "kernels/adamw_cuda.h"
#include "kernels/device/fragment.h"

namespace scrna::kernels {
namespace {

constexpr int kNormWarps = 8;
constexpr int kLayerThreads = 1024;
constexpr int kStepThreads = static_cast<int>(kFlatRow / 4);

__device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(~0U, value, step);
  return value;
}

__global__ void __launch_bounds__(kNormWarps * 32) row_squares_kernel(LayerNorms call) {
  constexpr int kLoads = static_cast<int>(kFlatRow / (4 * 32));
  const int64_t row = int64_t{blockIdx.x} * kNormWarps + threadIdx.x / 32;
  if (row >= call.num_rows) return;
  const auto* from = reinterpret_cast<const float4*>(call.gradients + row * kFlatRow) + threadIdx.x % 32;
  float4 values[kLoads];
#pragma unroll
  for (int i = 0; i < kLoads; ++i) values[i] = from[i * 32];
  float4 sums = make_float4(0, 0, 0, 0);
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    sums.x = fmaf(values[i].x, values[i].x, sums.x);
    sums.y = fmaf(values[i].y, values[i].y, sums.y);
    sums.z = fmaf(values[i].z, values[i].z, sums.z);
    sums.w = fmaf(values[i].w, values[i].w, sums.w);
  }
  const double sum = warp_sum((static_cast<double>(sums.x) + static_cast<double>(sums.y)) +
                              (static_cast<double>(sums.z) + static_cast<double>(sums.w)));
  if (threadIdx.x % 32 == 0) call.row_squares[row] = static_cast<float>(sum);
}

__global__ void __launch_bounds__(kLayerThreads) layer_squares_kernel(LayerNorms call) {
  __shared__ double of_warp[kLayerThreads / 32];
  const int layer = static_cast<int>(blockIdx.x);
  double sum = 0;
  for (int64_t parameter = 0; parameter < call.num_parameters; ++parameter) {
    if (call.layer_of[parameter] != layer) continue;
    const int64_t end = call.row_offsets[parameter + 1];
    for (int64_t row = call.row_offsets[parameter] + threadIdx.x; row < end; row += kLayerThreads)
      sum += static_cast<double>(call.row_squares[row]);
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  sum = warp_sum(of_warp[threadIdx.x]);
  if (threadIdx.x == 0) call.squares[layer] = sum;
}

__global__ void __launch_bounds__(32) decide_kernel(AdamWDecision call) {
  double sum = 0;
  for (int64_t layer = threadIdx.x; layer < call.num_layers; layer += 32) sum += call.squares[layer];
  const double norm = sqrt(warp_sum(sum));
  if (threadIdx.x > 0) return;
  const bool applied = isfinite(norm) && (call.loss == nullptr || isfinite(*call.loss));
  const int64_t updates = *call.num_updates + (applied ? 1 : 0);
  *call.num_updates = updates;
  const double clip = call.settings.clip_norm;
  call.control[kControlNorm] = norm;
  call.control[kControlFactor] = clip > 0 && norm > clip ? clip / norm : 1.0;
  call.control[kControlApplied] = applied ? 1.0 : 0.0;
  call.control[kControlStepSize] =
      call.settings.learning_rate / (1.0 - pow(call.settings.beta1, static_cast<double>(updates)));
  call.control[kControlRootOfSecond] = sqrt(1.0 - pow(call.settings.beta2, static_cast<double>(updates)));
}

/// The settings in fp32, worked out in fp64.
struct StepFactors {
  float gradient, decay, mean_weight, second_keep, second_weight, inverse_root, epsilon, step;
};

__device__ __forceinline__ void update(const StepFactors& f, float gradient, float& value, float& mean,
                                       float& second) {
  gradient *= f.gradient;
  value -= f.decay * value;
  mean = fmaf(f.mean_weight, gradient - mean, mean);
  second = fmaf(f.second_keep, second, f.second_weight * gradient * gradient);
  value -= f.step * mean / fmaf(sqrtf(second), f.inverse_root, f.epsilon);
}

__global__ void __launch_bounds__(kStepThreads)
    step_kernel(const __grid_constant__ AdamWStep call, StepFactors f) {
  const int64_t index = int64_t{blockIdx.x} * kStepThreads + threadIdx.x;
  float4 value = reinterpret_cast<const float4*>(call.values)[index];
  float4 mean = reinterpret_cast<const float4*>(call.mean)[index];
  float4 second = reinterpret_cast<const float4*>(call.squared_mean)[index];
  const float4 gradient = reinterpret_cast<const float4*>(call.gradients)[index];
  if (call.control[kControlApplied] == 0.0) return;
  f.gradient = static_cast<float>(call.control[kControlFactor]);
  f.step = static_cast<float>(call.control[kControlStepSize]);
  f.inverse_root = static_cast<float>(1.0 / call.control[kControlRootOfSecond]);
  if (blockIdx.x >= call.num_decayed_rows) f.decay = 0;
  update(f, gradient.x, value.x, mean.x, second.x);
  update(f, gradient.y, value.y, mean.y, second.y);
  update(f, gradient.z, value.z, mean.z, second.z);
  update(f, gradient.w, value.w, mean.w, second.w);
  reinterpret_cast<float4*>(call.values)[index] = value;
  reinterpret_cast<float4*>(call.mean)[index] = mean;
  reinterpret_cast<float4*>(call.squared_mean)[index] = second;
  if (call.bfloat16_copy != nullptr)
    static_cast<uint2*>(call.bfloat16_copy)[index] = make_uint2(
        device::pack<__nv_bfloat16>(value.x, value.y), device::pack<__nv_bfloat16>(value.z, value.w));
}

}  // namespace

cudaError_t layer_norms_cuda(const LayerNorms& call, cudaStream_t stream) {
  if (call.num_layers == 0) return cudaSuccess;
  if (call.num_rows > 0) {
    const auto blocks = static_cast<unsigned>((call.num_rows + kNormWarps - 1) / kNormWarps);
    row_squares_kernel<<<blocks, kNormWarps * 32, 0, stream>>>(call);
  }
  layer_squares_kernel<<<static_cast<unsigned>(call.num_layers), kLayerThreads, 0, stream>>>(call);
  return cudaGetLastError();
}

cudaError_t adamw_decide_cuda(const AdamWDecision& call, cudaStream_t stream) {
  decide_kernel<<<1, 32, 0, stream>>>(call);
  return cudaGetLastError();
}

cudaError_t adamw_step_cuda(const AdamWStep& call, cudaStream_t stream) {
  if (call.num_rows == 0) return cudaSuccess;
  const AdamWSettings& s = call.settings;
  const StepFactors factors{.gradient = 1.0F,
                            .decay = static_cast<float>(s.learning_rate * s.weight_decay),
                            .mean_weight = static_cast<float>(1.0 - s.beta1),
                            .second_keep = static_cast<float>(s.beta2),
                            .second_weight = static_cast<float>(1.0 - s.beta2),
                            .inverse_root = 1.0F,
                            .epsilon = static_cast<float>(s.epsilon),
                            .step = 0.0F};
  step_kernel<<<static_cast<unsigned>(call.num_rows), kStepThreads, 0, stream>>>(call, factors);
  return cudaGetLastError();
}

}  // namespace scrna::kernels
