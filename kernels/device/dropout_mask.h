// Dropout's decisions inside other kernels: the cell of a token and the mask of eight features, the same bits
// as the kernel of its own (kernels/dropout.h).
#pragma once

#include "kernels/device/octet.h"
#include "kernels/dropout.h"

namespace scrna::kernels::device {

static_assert(kOctet == kDropoutGroup);

/// The last cell that begins at or before the token.
__device__ __forceinline__ int64_t cell_of(const int32_t* cu_seqlens, int64_t num_cells, int64_t token) {
  int64_t low = 0;
  int64_t high = num_cells;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (cu_seqlens[middle] <= token)
      low = middle;
    else
      high = middle;
  }
  return low;
}

/// One token's mask; without dropout (threshold 0) nothing is read.
class TokenMask {
 public:
  __device__ __forceinline__ TokenMask(const DropoutMask& mask, int64_t token)
      : key_(mask.key), threshold_(mask.threshold), scale_(dropout_scale(mask.threshold)) {
    if (threshold_ == 0) return;
    const int64_t cell = cell_of(mask.cu_seqlens, mask.num_cells, token);
    cell_id_ = mask.cell_ids[cell];
    position_ = static_cast<uint32_t>(token - mask.cu_seqlens[cell]);
  }
  /// The mask that lane `lane` of this warp holds. All lanes.
  __device__ __forceinline__ TokenMask of_lane(int lane) const {
    TokenMask other = *this;
    other.cell_id_ = __shfl_sync(~0U, cell_id_, lane);
    other.position_ = __shfl_sync(~0U, position_, lane);
    return other;
  }
  /// values <- values * keep / (1 - p) for features 8 * group ... 8 * group + 7.
  __device__ __forceinline__ void apply(int group, float (&values)[kOctet]) const {
    if (threshold_ == 0) return;
    const PhiloxWords words = dropout_words(key_, cell_id_, position_, static_cast<uint32_t>(group));
#pragma unroll
    for (int i = 0; i < kOctet; ++i)
      values[i] = dropout_keeps(words, i, threshold_) ? values[i] * scale_ : 0.0F;
  }

 private:
  uint64_t key_;
  uint64_t cell_id_ = 0;
  uint32_t position_ = 0;
  uint32_t threshold_;
  float scale_;
};

}  // namespace scrna::kernels::device
