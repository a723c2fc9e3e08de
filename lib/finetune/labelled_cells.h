// The cells that a classifier is made of: which cells of the files have a label, their tokens, and which of
// them are held out. Everything left out is counted and said. The tokens of all labelled cells are kept in
// memory (4 bytes each: a million cells of 2,000 tokens are 8 GB): epochs read them in random order, which
// compressed files are slow at.
//
// The split is a function of the seed and of the cells' tokens, not of the names or the order of files: cells
// of each class are ordered by a hash, the first of them held out, and cells with the same tokens (the same
// cell in two files) stand together. With a column of groups (donors), whole groups are held out
// (data::choose_heldout_groups).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/data/cell_tokens.h"
#include "lib/data/corpus.h"
#include "lib/finetune/finetune_config.h"
#include "lib/train/embed_file.h"

namespace scrna::finetune {

/// Labels of one file.
struct FileLabels {
  std::string file;
  std::vector<int32_t> classes;  // [cells] into Labelling::classes, -1: left out
  std::vector<int32_t> groups;   // [cells] into Labelling::groups; empty without split_by
};

struct Labelling {
  std::vector<FileLabels> files;
  std::vector<std::string> classes;  // ascending
  std::vector<std::string> groups;   // of split_by, in order of appearance
  int64_t file_cells = 0;
  int64_t unlabelled = 0;     // cells without a label ("", "nan", "NaN" and "<NA>" are none)
  int64_t ignored = 0;        // by ignored_labels
  int64_t without_group = 0;  // labelled, without a value of split_by
};

/// Looks at the obs tables alone. Throws DataError: a column that is missing (naming those there are) or
/// holds floating-point numbers, a label to ignore that no file has, fewer than two classes.
Labelling read_labels(const FinetuneConfig& config);

struct LabelledCell {
  int32_t file = 0;    // into Labelling::files
  int64_t row = 0;     // of the file
  int32_t label = 0;   // into classes
  int32_t group = -1;  // into Labelling::groups
  uint64_t id = 0;     // hash of its tokens: keys the split
};

struct LabelledCells {
  std::vector<LabelledCell> cells;  // in the order of files and rows
  data::TokenizedCells tokens;      // of cells[i] its cell i; none is empty
  std::vector<std::string> classes;
  int64_t without_genes = 0;  // labelled, with fewer than data.min_genes genes of the vocabulary
};

/// Called now and then with cells looked at and cells in all; false: stop, and Interrupted is thrown.
using CellsProgress = std::function<bool(int64_t cells, int64_t total)>;

/// Reads and tokenizes the labelled cells of every file. Throws DataError for a file whose counts cannot be
/// found or have few genes of the vocabulary, and as reading does.
LabelledCells read_labelled_cells(const train::Embedder& embedder, const Labelling& labelling,
                                  const data::Progress& open_progress, const CellsProgress& keep_going);

struct Split {
  std::vector<int64_t> training, heldout;  // into cells, ascending
  std::vector<std::string> held_groups;    // with split_by
  std::vector<std::string> rare_classes;   // left out: "name (5 to train, 1 held out)"
  int64_t rare_cells = 0;
  int64_t heldout_twins = 0;  // held-out cells with the tokens of a cell that is trained on
};

/// Splits, and leaves out of `cells` the classes that have fewer than 2 cells in either part where
/// config.drop_rare_classes says so. Throws DataError naming them where it does not, when fewer than two
/// classes remain, and when there are fewer than two groups.
Split split_cells(LabelledCells& cells, const Labelling& labelling, const FinetuneConfig& config);

/// At most eight of them, for messages: "a, b, c and 12 more".
std::string first_of(const std::vector<std::string>& names);

}  // namespace scrna::finetune
