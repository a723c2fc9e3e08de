// How fast .h5ad files become shuffled cells, and at which stage the time goes: single rows, blocks of cells
// mixed in a window as they come, the same tokenized, and the micro-batches a training step gets. All in one
// process on the same files, by number of threads, several times each; the median counts, and the fastest and
// slowest pass are kept beside it, since machines have other users. Peers run in Python on the same files:
// tests/speed/data_peers.py.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/config/bound.h"

namespace scrna::bench {

struct DataBenchOptions {
  std::vector<std::string> files;
  std::string vocabulary;
  std::string cache;
  int64_t max_workers = 2;
  int64_t block_cells = 128;
  int64_t window_cells = 8192;
  int64_t batch_cells = 256;
  int64_t single_rows = 2000;
  int64_t repeats = 3;
  uint64_t seed = 0;

  template <class V>
  void visit(V&& v) {
    v("vocabulary", vocabulary, "vocabulary.tsv; empty: built from the files first");
    v("cache", cache, "folder of a cache of the same files (scrna-train cache); empty: that row is left out");
    v("max_workers", max_workers, "threads: 1, 2, 4 ... up to this many are measured",
      config::between(1, 256));
    v("block_cells", block_cells, "neighbouring cells read together", config::between(1, 65536));
    v("window_cells", window_cells, "cells mixed in memory", config::between(1, 16777216));
    v("batch_cells", batch_cells, "cells copied together in their shuffled order", config::between(1, 65536));
    v("single_rows", single_rows, "random single rows read, the slow way", config::between(1, 100000000));
    v("repeats", repeats, "passes of which the median counts", config::between(1, 100));
    v("seed", seed, "seed of the order");
  }
};

struct DataBenchRow {
  std::string what;
  int64_t workers = 0;
  int64_t context = 0;              // tokens of a cell, at most; 0: not tokenized
  int64_t cells = 0;                // of one pass
  int64_t entries = 0;              // tokens, or stored values where they are not tokenized
  std::vector<double> seconds;      // of each pass
  int64_t peak_resident_bytes = 0;  // of the process, during these passes
  [[nodiscard]] double median_seconds() const;
};

struct DataBenchResult {
  int64_t cells = 0, genes = 0, stored_values = 0, file_bytes = 0, num_files = 0;
  double open_seconds = 0;        // files, matrices, gene ids
  double vocabulary_seconds = 0;  // 0 when given
  std::vector<DataBenchRow> rows;
};

/// Calls `after_row` with each row when it is measured. Throws what opening and reading throw.
DataBenchResult bench_data(const DataBenchOptions& options,
                           const std::function<void(const DataBenchRow&)>& after_row);

}  // namespace scrna::bench
