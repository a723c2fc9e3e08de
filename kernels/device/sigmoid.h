// sigmoid(scale * s + bias) of score fragments, in place or rounded and packed. Issue slots limit the
// attention kernels, not the special function unit (measured on an H200: each instruction per score costs
// 0.0094 clocks per multiprocessor whatever it is), so the forms are ranked by instructions per score,
// operand rounding (0.5) not counted:
//
//   kTanh         3     0.5 + 0.5 tanh(x / 2) with tanh.approx: absolute error 4e-6, so a relative error of
//                       the weight of 0.4 % at -log(1,024) and 1.6 % at -log(4,096)
//   kReciprocal   4     1 / (1 + 2^z): relative error 1e-6; two special functions per score
//   kSmall        4.5   e - e^2 + e^3 with e = 2^-z while all weights of a warp's fragment are below 1/8
//                       (relative error below 2^-9 there, 1e-6 below 1/100); otherwise e / (1 + e). 4.25
//                       where the limit is checked on the rounded weights
//   kTiny         3.5   e - e^2 while all are below 0.0442 (relative error below 2^-9 there, 1e-6 below
//                       1/1,000); otherwise e / (1 + e)
//
// with z = -(scale s + bias) log2(e). With bias -log(n) nearly all fragments are small from n = 500 on and
// tiny from n = 1,400 on, if scores have a standard deviation of about 1; where they have one of 3, most
// fragments take the second branch, which costs the forward pass up to a third. Measured and dropped: one
// reciprocal per four scores (Montgomery's trick, 6 per score): 8 % slower than kSmall at 1,024 tokens, 15 %
// at 8,192; a third limit inside one form: slower by what its branch costs; kReciprocal for the blocks after
// a large one: 5 % faster on large scores, 7 % slower on small ones. kReciprocal, kSmall and kTiny reach
// exact zero.
#pragma once

#include <cstdint>

#include "kernels/device/fragment.h"

namespace scrna::kernels::device {

enum class SigmoidForm : uint8_t { kTanh, kReciprocal, kSmall, kTiny };

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

constexpr float kTinyLimit = 0.0442F;  // of e: e^2 = 2^-9
constexpr float kSmallLimit = 0.125F;  // of e: e^3 = 2^-9

/// e / (1 + e), NaN for NaN.
__device__ __forceinline__ float sigmoid_of_exponential(float e) {
  e = min_keeping_nan(e, 0x1p100F);
  return e * reciprocal_approx(1.0F + e);
}

/// What scale and biases are multiplied with beforehand, so that one multiply-add yields the argument.
template <SigmoidForm kForm>
constexpr float kSigmoidFactor = kForm == SigmoidForm::kTanh         ? 0.5F
                                 : kForm == SigmoidForm::kReciprocal ? -1.4426950408889634F
                                                                     : 1.4426950408889634F;

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
    constexpr bool kTiny = kForm == SigmoidForm::kTiny;
    uint32_t largest[2] = {0, 0};  // of non-negative floats, whose bits are in their order; NaN is above all
#pragma unroll
    for (int i = 0; i < kSize; i += 2) {
      s[i] = exp2_approx(fmaf(s[i], scale, bias(i)));
      s[i + 1] = exp2_approx(fmaf(s[i + 1], scale, bias(i + 1)));
      uint32_t& l = largest[i / 2 % 2];
      l = max(max(l, __float_as_uint(s[i])), __float_as_uint(s[i + 1]));
    }
    if (__any_sync(~0U, max(largest[0], largest[1]) > __float_as_uint(kTiny ? kTinyLimit : kSmallLimit))) {
#pragma unroll
      for (int i = 0; i < kSize; ++i) s[i] = sigmoid_of_exponential(s[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kSize; ++i) s[i] = fmaf(s[i], kTiny ? -s[i] : fmaf(s[i], s[i], -s[i]), s[i]);
    }
  }
}

/// Whether one of the warp's pairs of non-negative Elements exceeds `limit`; NaN does.
template <class Element>
__device__ __forceinline__ bool any_pair_above(uint32_t pairs, float limit) {
  const uint32_t bits = pack<Element>(limit, limit) & 0xFFFFU;
  return __any_sync(~0U, (pairs & 0xFFFFU) > bits || (pairs >> 16) > bits) != 0;
}

/// weights <- sigmoid(scale * s + bias) rounded to Element, in pairs. Destroys s. Weights are rounded before
/// it is known whether they are small: most are, and their rounding then needs no room of its own in time.
template <SigmoidForm kForm, class Element, int kSize, class Bias>
__device__ __forceinline__ void rounded_sigmoid(float (&s)[kSize], float scale,
                                                uint32_t (&weights)[kSize / 2], Bias bias) {
  if constexpr (kForm == SigmoidForm::kSmall || kForm == SigmoidForm::kTiny) {
    constexpr bool kTiny = kForm == SigmoidForm::kTiny;
    const auto weight = [](float e) { return fmaf(e, kTiny ? -e : fmaf(e, e, -e), e); };
    uint32_t largest[2] = {0, 0};  // two chains: one is 3 % slower
#pragma unroll
    for (int i = 0; i < kSize; i += 4) {
#pragma unroll
      for (int k = i; k < i + 4; ++k) s[k] = exp2_approx(fmaf(s[k], scale, bias(k)));
      weights[i / 2] = pack<Element>(weight(s[i]), weight(s[i + 1]));
      weights[i / 2 + 1] = pack<Element>(weight(s[i + 2]), weight(s[i + 3]));
      if constexpr (kTiny) {  // e - e^2 falls again beyond 1/2, so e itself must be looked at
        largest[0] = max(max(largest[0], __float_as_uint(s[i])), __float_as_uint(s[i + 1]));
        largest[1] = max(max(largest[1], __float_as_uint(s[i + 2])), __float_as_uint(s[i + 3]));
      } else {
        largest[0] = __vimax3_u16x2(largest[0], weights[i / 2], weights[i / 2 + 1]);
      }
    }
    bool is_large;
    if constexpr (kTiny)
      is_large = __any_sync(~0U, max(largest[0], largest[1]) > __float_as_uint(kTinyLimit)) != 0;
    else
      is_large = any_pair_above<Element>(largest[0], weight(kSmallLimit));
    if (is_large) {
#pragma unroll
      for (int i = 0; i < kSize; i += 2)
        weights[i / 2] = pack<Element>(sigmoid_of_exponential(s[i]), sigmoid_of_exponential(s[i + 1]));
    }
  } else {
    sigmoid<kForm>(s, scale, bias);
#pragma unroll
    for (int i = 0; i < kSize / 2; ++i) weights[i] = pack<Element>(s[2 * i], s[2 * i + 1]);
  }
}

}  // namespace scrna::kernels::device
