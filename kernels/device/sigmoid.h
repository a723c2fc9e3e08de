// sigmoid(scale * s + bias) of score fragments, in place. Issue slots limit the attention kernels, not the
// special function unit (measured on an H200: each instruction per score costs 0.0094 clocks per
// multiprocessor whatever it is), so the forms are ranked by instructions per score, operand rounding (0.5)
// not counted:
//
//   kTanh         3    0.5 + 0.5 tanh(x / 2) with tanh.approx: absolute error 4e-6, so a relative error of
//   the weight of
//                      0.4 % at -log(1,024) and 1.6 % at -log(4,096)
//   kReciprocal   4    1 / (1 + 2^z): relative error 1e-6; two special functions per score
//   kSmall        4.5  e - e^2 + e^3 with e = 2^-z while all weights of a warp's fragment are below 1/8
//                      (relative error below 2^-9 there, 1e-6 below 1/100); otherwise e / (1 + e), 6.5.
//                      With bias -log(n) and n > 500 nearly all fragments are small
//
// with z = -(scale s + bias) log2(e). Measured and dropped: one reciprocal per four scores (Montgomery's
// trick, 6 per score): 8 % slower than kSmall at 1,024 tokens, 15 % at 8,192. kReciprocal and kSmall reach
// exact zero.
#pragma once

#include <cstdint>

namespace scrna::kernels::device {

enum class SigmoidForm : uint8_t { kTanh, kReciprocal, kSmall };

__device__ __forceinline__ float tanh_approx(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// The smaller one, NaN if either is: a broken score must stay visible.
__device__ __forceinline__ float min_keeping_nan(float x, float y) {
  float z;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
  return z;
}
__device__ __forceinline__ float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// What scale and biases are multiplied with beforehand, so that one multiply-add yields the argument.
template <SigmoidForm kForm>
constexpr float kSigmoidFactor = kForm == SigmoidForm::kTanh    ? 0.5F
                                 : kForm == SigmoidForm::kSmall ? 1.4426950408889634F
                                                                : -1.4426950408889634F;

/// s[i] <- sigmoid, with scale and bias(i) already multiplied by kSigmoidFactor.
template <SigmoidForm kForm, int kSize, class Bias>
__device__ __forceinline__ void sigmoid(float (&s)[kSize], float scale, Bias bias) {
  if constexpr (kForm == SigmoidForm::kTanh) {
#pragma unroll
    for (int i = 0; i < kSize; ++i) s[i] = fmaf(tanh_approx(fmaf(s[i], scale, bias(i))), 0.5F, 0.5F);
  } else if constexpr (kForm == SigmoidForm::kReciprocal) {
#pragma unroll
    for (int i = 0; i < kSize; ++i) s[i] = reciprocal_approx(1.0F + exp2_approx(fmaf(s[i], scale, bias(i))));
  } else {
    constexpr uint32_t kLargest = 0x3E000000;  // 1/8
    uint32_t largest = 0;  // of non-negative floats, whose bits are in their order; NaN is above all
#pragma unroll
    for (int i = 0; i < kSize; i += 2) {
      s[i] = exp2_approx(fmaf(s[i], scale, bias(i)));
      s[i + 1] = exp2_approx(fmaf(s[i + 1], scale, bias(i + 1)));
      largest = max(max(largest, __float_as_uint(s[i])), __float_as_uint(s[i + 1]));
    }
    if (__any_sync(~0U, largest > kLargest)) {
#pragma unroll
      for (int i = 0; i < kSize; ++i) {
        const float e = min_keeping_nan(s[i], 0x1p100F);
        s[i] = e * reciprocal_approx(1.0F + e);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kSize; ++i) s[i] = fmaf(s[i], fmaf(s[i], s[i], -s[i]), s[i]);
    }
  }
}

}  // namespace scrna::kernels::device
