// Turns a corpus into packed micro-batches. TrainLoader's result is a pure function of (corpus, options,
// step): threads read and tokenize blocks ahead of need, one thread masks and packs in order, and neither
// their number nor their speed shows. To resume, construct with first_step. Global batch s holds cells [s B,
// (s+1) B) of the endless sequence of epochs, shared out over the ranks by what they cost (rank_plan.h). A cell of a
// corpus that is not whole may turn out to have too few genes of the vocabulary when it is read: another cell
// of its block takes its place, drawn by (seed, epoch, cell), or, where the block has none, a cell of the next
// block that has (block_tokens.h). So each step has its B cells, on every rank, and needs nothing but its blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lib/core/micro_batch.h"
#include "lib/data/corpus.h"

namespace scrna::data {

struct LoaderOptions {
  uint64_t seed = 0;
  int64_t global_batch_cells = 256;  // B, over all ranks; at least num_ranks
  int64_t first_step = 0;
  int64_t rank = 0;
  int64_t num_ranks = 1;
  double squared_length_weight = 0;  // of a cell's tokens squared beside its tokens: what ranks are balanced by
  double mask_fraction = 0.15;
  int64_t tokens_per_micro_batch = 16384;
  int64_t shuffle_block_cells = 128;
  int64_t shuffle_window_cells = 8192;
  int64_t num_workers = 2;
  int64_t prefetch_steps = 4;
};
/// Options from the configuration; the caller adds first_step and rank.
LoaderOptions loader_options(const DataConfig& data, const MaskingConfig& masking, uint64_t seed,
                             int64_t global_batch_cells);

class TrainLoader {
 public:
  /// Starts the threads. The corpus must outlive the loader. Throws ConfigError for options that contradict
  /// each other.
  TrainLoader(const Corpus& corpus, const LoaderOptions& options);
  /// Stops and joins the threads: at most the block each is reading is finished.
  ~TrainLoader();
  TrainLoader(const TrainLoader&) = delete;
  TrainLoader& operator=(const TrainLoader&) = delete;

  /// Batches of first_step, first_step + 1, ... Blocks until ready; rethrows what a thread threw. Throws
  /// InternalError after stop().
  GlobalBatch next();
  /// From any thread: a next() that waits in another one throws, as do later ones. For an owner that is
  /// destroyed while its thread waits.
  void stop();
  /// Seconds next() has spent waiting so far.
  [[nodiscard]] double waited_seconds() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The held-out cells with fixed masks, in file order. Cells are tokenized when constructed and stay in
/// memory; when the split holds more than data.heldout_cells, those with the lowest split position are taken.
class HeldoutLoader {
 public:
  /// Cells of a corpus that is not whole that turn out to have too few genes of the vocabulary are passed over;
  /// all of them may be. Throws DataError as reading does. Rank r of R takes every R-th cell. Uses options' mask_fraction, tokens_per_micro_batch, rank and
  /// num_ranks.
  HeldoutLoader(const Corpus& corpus, const LoaderOptions& options);

  /// Cells of this rank.
  [[nodiscard]] int64_t num_cells() const { return static_cast<int64_t>(cell_ids_.size()); }
  /// The next pack, false when all were given. rewind() starts again with the same packs.
  bool next(PackedMicroBatch& out);
  void rewind() { cursor_ = 0; }

 private:
  std::vector<int32_t> tokens_;      // of all cells, one after another
  std::vector<int64_t> cell_begin_;  // [cells + 1]
  std::vector<uint64_t> cell_ids_;   // [cells]
  double mask_fraction_;
  int64_t tokens_per_micro_batch_;
  std::size_t cursor_ = 0;
};

}  // namespace scrna::data
