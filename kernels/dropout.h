// Counter-based dropout over packed cells: y = x * keep / (1 - p). Whether feature d of a cell's token is
// kept is a pure function of (key, cell id, position in the cell, d), so the mask does not depend on how
// cells are packed, on ranks, threads or the device, and the backward pass makes it again instead of storing
// it (dropout of the gradient).
//
// One Philox call decides eight features: counter = (position, d / 8, cell id low, cell id high), 16 bits
// each, feature d % 8 taking half d % 2 of word (d % 8) / 2. An element is dropped when its 16 bits are below
// round(65,536 p); p is used in that resolution everywhere, so the expectation of y is exactly x. The
// rejected alternative, 32 bits for every feature, doubles the integer work, which on a GPU then exceeds the
// time of the memory traffic.
#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/philox.h"

namespace scrna::kernels {

/// Which elements of a [T, D] are dropped, for kernels that drop on the way. All zero: none.
struct DropoutMask {
  const int32_t* cu_seqlens = nullptr;  // [B+1]
  const uint64_t* cell_ids = nullptr;   // [B]
  int64_t num_cells = 0;                // B
  uint64_t key = 0;                     // from (seed, step, layer, site)
  uint32_t threshold = 0;               // dropout_threshold(p), below 65,536; 0: nothing is dropped
};

struct Dropout {
  const void* x = nullptr;  // [T, D] contiguous
  void* y = nullptr;        // [T, D] contiguous; may be x
  ElementType element_type = ElementType::kFloat32;
  int64_t num_tokens = 0;               // T
  int64_t width = 0;                    // D
  const int32_t* cu_seqlens = nullptr;  // [B+1]
  const uint64_t* cell_ids = nullptr;   // [B]
  int64_t num_cells = 0;                // B
  uint64_t key = 0;                     // from (seed, step, layer, site)
  uint32_t threshold = 0;               // dropout_threshold(p), below 65,536
};

constexpr int kDropoutGroup = 8;  // features decided by one Philox call

/// round(65,536 p) for p in [0, 1); 0 means that nothing is dropped.
constexpr uint32_t dropout_threshold(double probability) {
  return static_cast<uint32_t>(probability * 65536.0 + 0.5);
}
/// 1 / (1 - p) at the resolution of the threshold.
SCRNA_HOST_DEVICE constexpr float dropout_scale(uint32_t threshold) {
  return 65536.0F / (65536.0F - static_cast<float>(threshold));
}

/// The words that decide features 8 * group ... 8 * group + 7 of one token.
SCRNA_HOST_DEVICE constexpr PhiloxWords dropout_words(uint64_t key, uint64_t cell_id, uint32_t position,
                                                      uint32_t group) {
  return philox4x32(
      key, {{position, group, static_cast<uint32_t>(cell_id), static_cast<uint32_t>(cell_id >> 32)}});
}
SCRNA_HOST_DEVICE constexpr bool dropout_keeps(const PhiloxWords& words, int lane, uint32_t threshold) {
  return ((words.word[lane / 2] >> (16 * (lane % 2))) & 0xFFFFU) >= threshold;
}

/// fp32 and bf16 on the CPU. num_threads: at least 1.
void dropout_cpu(const Dropout& call, int num_threads);

}  // namespace scrna::kernels
