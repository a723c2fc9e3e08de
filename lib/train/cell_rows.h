// A row of numbers for every cell of a file, from its embeddings, computed window by window and kept beside
// the output, so that an interrupted command goes on: what `embed` and `annotate` have in common.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include <ATen/core/Tensor.h>

#include "lib/data/corpus.h"
#include "lib/eval/partial_rows.h"

namespace scrna::train {

struct Embedder;

struct CellRowsRequest {
  std::string command;  // "embed", for the log
  std::filesystem::path input, output;
  std::string settings;      // SHA-256 of everything that the rows depend on
  int64_t width = 0;         // of a row
  bool is_copy = true;       // the output is a copy of the input, and not the rows alone
  std::string space_advice;  // ends the sentence on a full disk: "; choose another folder"
};

struct CellRowsReport {
  bool is_finished = false;   // false: keep_going said to stop
  int64_t cells = 0;          // of the file
  int64_t resumed_cells = 0;  // found done
  double seconds = 0;         // computing them
};

/// Of the embeddings [cells, D] fp32 of a window, the rows that are kept: [cells, width] fp32 contiguous.
using RowsOfEmbeddings = std::function<at::Tensor(const at::Tensor& embeddings)>;
/// Shows progress of: cells done, of the whole file; false: stop.
using EmbedProgress = std::function<bool(int64_t cells_done, int64_t cells)>;

class CellRows {
 public:
  /// Opens OUTPUT.partial and logs what was done before. Throws DataError when the disk has no room for all
  /// of it, or the file cannot be opened.
  CellRows(const Embedder& embedder, const data::Corpus& corpus, const CellRowsRequest& request);

  /// Computes what is missing. Throws DeviceError when the GPU's memory is full, and as eval::embed_source().
  CellRowsReport compute(const RowsOfEmbeddings& rows_of, const EmbedProgress& keep_going);

  void read(int64_t first, int64_t count, float* out) const { rows_.read(first, count, out); }
  /// The output is there: the rows are not needed any more.
  void remove() { rows_.remove(); }

 private:
  const Embedder& embedder_;
  const data::Corpus& corpus_;
  int64_t cells_, window_cells_;
  eval::PartialRows rows_;
};

}  // namespace scrna::train
