// Packs tokenized cells into micro-batches and masks them. Which cells share a pack is the caller's: those
// that pack_plan.h puts together (training), or whole cells in their order, as many as fit (held-out cells).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/core/micro_batch.h"
#include "lib/core/random.h"

namespace scrna::data {

class Packer {
 public:
  Packer(int64_t tokens_per_micro_batch, double mask_fraction)
      : tokens_per_micro_batch_(tokens_per_micro_batch), mask_fraction_(mask_fraction) {}

  /// True when a cell of `num_tokens` does not fit into the pack begun.
  [[nodiscard]] bool is_full_for(int64_t num_tokens) const;
  /// Appends a cell: its tokens ([<cls>] genes), masked with `stream`. Call take() first when is_full_for()
  /// its tokens.
  void add(std::span<const int32_t> tokens, uint64_t cell_id, const RandomStream& stream);
  [[nodiscard]] bool is_empty() const { return pack_.cell_ids.empty(); }
  /// The pack so far; the next one begins empty.
  PackedMicroBatch take();

 private:
  int64_t tokens_per_micro_batch_;
  double mask_fraction_;
  PackedMicroBatch pack_;
  std::vector<int32_t> masked_;  // scratch
};

}  // namespace scrna::data
