// Who owns which part of a flat buffer when the optimizer's state is divided over the ranks (ZeRO stage 1,
// arXiv 1910.02054). Every bucket of the buffer is cut into as many equal parts as there are ranks, in whole
// rows; rank r owns the r-th part of each. So the sum of a bucket's gradients is a reduce-scatter in place,
// overlapped with the backward pass like the all-reduce it replaces, and the weights come back by an
// all-gather in place. The rows that do not divide (fewer than ranks, per bucket) are everybody's: summed by
// an all-reduce, updated on every rank from the same numbers. Rejected: one contiguous shard per rank, which
// needs a reduction to one root for every piece of a bucket (hundreds of small collectives with hundreds of
// ranks); padding, which moves every parameter with the number of ranks.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "lib/core/element_range.h"
#include "lib/dist/communicator.h"

namespace scrna::dist {

/// A bucket as ranks share it: the parts [begin, begin + num_ranks * part), then what does not divide.
struct BucketShares {
  ElementRange bucket;
  int64_t part = 0;  // elements of one rank

  BucketShares(ElementRange bucket, int64_t num_ranks, int64_t row_elements);
  [[nodiscard]] ElementRange parts(int64_t num_ranks) const {
    return {bucket.begin, bucket.begin + num_ranks * part};
  }
  [[nodiscard]] ElementRange part_of(int64_t rank) const {
    return {bucket.begin + rank * part, bucket.begin + (rank + 1) * part};
  }
  [[nodiscard]] ElementRange rest(int64_t num_ranks) const {
    return {bucket.begin + num_ranks * part, bucket.end};
  }
};

class Shards {
 public:
  /// buckets: disjoint, together the whole buffer; each a multiple of row_elements long. The communicator
  /// must outlive this object.
  Shards(Communicator& communicator, const std::vector<ElementRange>& buckets, int64_t row_elements);

  /// What this rank updates and keeps the state of, ascending within a bucket.
  [[nodiscard]] const std::vector<ElementRange>& own() const { return own_; }
  /// The same, but everybody's rows on the first rank only: a sum over these, summed over the ranks, counts
  /// every element once.
  [[nodiscard]] const std::vector<ElementRange>& counted() const { return counted_; }
  [[nodiscard]] int64_t num_own() const { return num_own_; }

  /// flat [N] on the tensors' device: every rank's own elements to all. For the current stream; on the CPU
  /// done on return. Throws DeviceError when a rank is gone.
  void spread(const at::Tensor& flat) const;
  /// own [num_own()], as own() orders it: the whole buffer [N], on the CPU of the first rank; undefined on
  /// the others. One bucket at a time passes through the devices. Collective; throws DeviceError.
  [[nodiscard]] at::Tensor collect(const at::Tensor& own) const;

 private:
  Communicator& communicator_;
  std::vector<BucketShares> buckets_;
  std::vector<ElementRange> own_, counted_;
  int64_t num_own_ = 0;
  int64_t num_elements_ = 0;
};

}  // namespace scrna::dist
