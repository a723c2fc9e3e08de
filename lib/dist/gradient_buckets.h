// Sums a flat gradient buffer over the ranks while the backward pass still fills it. The buffer is cut into
// buckets, each a contiguous range of pieces (parameters); when the last piece of a bucket is complete, and
// all buckets before it are on their way, its all-reduce starts. So every rank issues the same collectives in
// the same order, whatever the order in which its pieces complete. A view of the buffer is reduced in place
// (fp32), or a bf16 copy of it, which halves the bytes and rounds the gradients of each rank, and their sums,
// to 8 bits. Rejected: c10d::Reducer, which owns buckets of its own (a second copy of all gradients), changes
// its constructor with every release, and divides.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

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

class GradientBuckets {
 public:
  /// pieces: in the order in which the backward pass is expected to complete them; together they cover flat
  /// without overlap. A bucket is closed once it holds bucket_bytes (of fp32), and at every gap between
  /// neighbours. The communicator must outlive this object; flat [N] fp32 stays where it is.
  GradientBuckets(Communicator& communicator, at::Tensor flat, const std::vector<GradientPiece>& pieces,
                  int64_t bucket_bytes, GradientType type);

  /// Before the backward pass that completes the gradients (the last of a step).
  void begin();
  /// Piece `index` has its final value, on the current stream. Starts every all-reduce that became possible.
  /// Throws InternalError outside begin() ... finish() or when the piece was ready already, DeviceError when
  /// a rank is gone.
  void ready(std::size_t index);
  /// Whether ready(index) was called since begin().
  [[nodiscard]] bool is_ready(std::size_t index) const { return is_ready_[index] != 0; }
  /// All pieces must be ready. Afterwards flat holds the sums, for the current stream (the host, on the CPU).
  void finish();

  [[nodiscard]] std::size_t num_buckets() const { return buckets_.size(); }
  /// That each rank puts into an all-reduce per step.
  [[nodiscard]] int64_t bytes_per_step() const;

 private:
  struct Bucket {
    int64_t begin = 0, end = 0;
    int64_t phase = 0;
    int64_t num_pieces = 0;
    int64_t num_waiting = 0;  // pieces that are not ready
    at::Tensor sent;          // what is reduced
    Work work;
  };
  void launch(Bucket& bucket);

  Communicator& communicator_;
  at::Tensor flat_;
  GradientType type_;
  std::vector<Bucket> buckets_;
  std::vector<std::size_t> bucket_of_;  // [pieces]
  std::vector<uint8_t> is_ready_;       // [pieces]
  std::size_t next_ = 0;                // first bucket that is not on its way
  bool is_open_ = false;
};

}  // namespace scrna::dist
