// Sums a flat gradient buffer over the ranks while the backward pass still fills it. The buffer is cut into
// buckets, each a contiguous range of pieces (parameters); when the last piece of a bucket is complete, and
// all buckets before it are on their way, its all-reduce starts. So every rank issues the same collectives in
// the same order, whatever the order in which its pieces complete. A view of the buffer is reduced in place
// (fp32), or a bf16 copy of it, which halves the bytes and rounds the gradients of each rank, and their sums,
// to 8 bits. Where the optimizer's state is sharded (shards.h), a reduce-scatter takes the all-reduce's place.
// Rejected: c10d::Reducer, which owns buckets of its own (a second copy of all gradients), changes
// its constructor with every release, and divides.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "lib/core/element_range.h"
#include "lib/dist/communicator.h"
#include "lib/dist/dist_config.h"

namespace scrna::dist {

/// A range of the flat buffer that is complete at one moment.
struct GradientPiece {
  int64_t begin = 0;  // elements
  int64_t end = 0;
  int64_t phase =
      0;  // a bucket never holds pieces of two phases: those of a late one would hold back the early ones
};

/// The ranges in which a buffer is summed, in the order in which they leave.
struct BucketPlan {
  std::vector<ElementRange> buckets;
  std::vector<std::size_t> bucket_of;  // [pieces]
};

/// pieces: in the order in which the backward pass is expected to complete them; together they cover the
/// num_elements of the buffer without overlap. A bucket is closed once it holds bucket_bytes (of fp32), at a
/// phase and at every gap between neighbours.
BucketPlan plan_buckets(const std::vector<GradientPiece>& pieces, int64_t num_elements, int64_t bucket_bytes);

/// What of a bucket's sum a rank gets.
enum class Summed {
  kWhole,  // everything: all-reduce
  kShard   // Shards::own(): reduce-scatter, and an all-reduce of the rows that do not divide
};

class GradientBuckets {
 public:
  /// plan: of this buffer. The communicator must outlive this object; flat [N] fp32 stays where it is.
  /// row_elements: as Shards has it; unused for kWhole.
  GradientBuckets(Communicator& communicator, at::Tensor flat, BucketPlan plan, GradientType type,
                  Summed summed = Summed::kWhole, int64_t row_elements = 1);

  /// Before the backward pass that completes the gradients (the last of a step).
  void begin();
  /// Piece `index` has its final value, on the current stream. Starts every all-reduce that became possible.
  /// Throws InternalError outside begin() ... finish() or when the piece was ready already, DeviceError when
  /// a rank is gone.
  void ready(std::size_t index);
  /// Whether ready(index) was called since begin().
  [[nodiscard]] bool is_ready(std::size_t index) const { return is_ready_[index] != 0; }
  /// All pieces must be ready. Afterwards flat holds the sums, for the current stream (the host, on the CPU);
  /// with kShard in Shards::own() alone, and nothing in particular elsewhere.
  void finish();

  [[nodiscard]] std::size_t num_buckets() const { return buckets_.size(); }
  /// That each rank puts into the sums per step.
  [[nodiscard]] int64_t bytes_per_step() const;

 private:
  struct Bucket {
    ElementRange range;
    int64_t num_pieces = 0;
    int64_t num_waiting = 0;  // pieces that are not ready
    at::Tensor sent;          // what is reduced
    std::vector<Work> works;
  };
  void launch(Bucket& bucket);

  Communicator& communicator_;
  at::Tensor flat_;
  GradientType type_;
  Summed summed_;
  int64_t row_elements_;
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> bucket_of_;  // [pieces]
  std::vector<uint8_t> is_ready_;       // [pieces]
  std::size_t next_ = 0;                // first bucket that is not on its way
  bool is_open_ = false;
};

}  // namespace scrna::dist
