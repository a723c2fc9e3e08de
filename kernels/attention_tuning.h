// Tile sizes and register budgets of the Hopper attention kernels. Tile sizes were chosen with the prototypes
// on an H200 (8,192 tokens per cell, 16,384 in all, bf16, fast sigmoid, TFLOP/s); the alternatives measured
// stand beside them.
//
// Registers, in multiples of 8: the warpgroups of a block of 512 threads share 512 per lane of a warp in all,
// of 384 threads 504. ptxas keeps to the budget of each role; the numbers here leave it no spill
// (check_ptxas.cmake).
#pragma once

namespace scrna::kernels {

template <int kHeadWidth>
struct ForwardTuning;

template <>
struct ForwardTuning<64> {
  static constexpr int kWarpgroups = 3;  // of 64 queries; two: 499-514 instead of 571-616
  static constexpr int kKeys = 64;   // per block; 48: 578, 80: 517, 96: 565, 128 with one score buffer: 571
  static constexpr int kStages = 4;  // of K and V; 6: equal
  static constexpr bool kQueryInRegisters = false;  // does not fit
  static constexpr int kConsumerRegisters = 160;
  static constexpr int kProducerRegisters = 32;
};

template <>
struct ForwardTuning<128> {
  static constexpr int kWarpgroups = 2;
  static constexpr int kKeys = 64;  // 96 with Q in shared memory: 709 instead of 714
  static constexpr int kStages = 4;
  static constexpr bool kQueryInRegisters = true;  // spares shared memory traffic
  static constexpr int kConsumerRegisters = 232;
  static constexpr int kProducerRegisters = 40;
};

/// Cells with a bias below this (more than 1,353 tokens) try SigmoidForm::kTiny first, others kSmall, in the
/// exact form; times log2(e). At T = 1,024 a fragment in fourteen would exceed kTiny's limit: 432 instead of
/// 455.
inline constexpr float kTinyBiasBelow = -10.4F;

/// Steps between two points without a product in flight: longer bodies cost instruction fetches (14: -2 %,
/// 30: -4 %); 4: -2 %.
inline constexpr int kForwardBodySteps = 6;

template <int kHeadWidth>
struct BackwardTuning;

template <>
struct BackwardTuning<64> {
  static constexpr int kKeyBuffers = 2;  // tiles of K and V: the next tile arrives while this one is used
  static constexpr int kStages = 3;      // of Q and dO
  static constexpr bool kKeepWeights = true;  // P in fp32 until dS: errors of dQ, dK 2.4e-3 instead of 2.9e-3
  static constexpr int kKeyRegisters = 184;
  static constexpr int kQueryRegisters = 88;
  static constexpr int kProducerRegisters = 56;
};

template <>
struct BackwardTuning<128> {
  static constexpr int kKeyBuffers = 1;  // shared memory is full
  static constexpr int kStages = 3;
  static constexpr bool kKeepWeights = false;  // no registers left
  static constexpr int kKeyRegisters = 208;
  static constexpr int kQueryRegisters = 64;
  static constexpr int kProducerRegisters = 32;
};

}  // namespace scrna::kernels
