// What `scrna-train evaluate` measures: which cells of a file have a label, which of them are taken, and the embeddings of
// exactly those, from the same file or, matched by the names of cells, from others. Everything left out is counted and said.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lib/data/anndata.h"
#include "lib/eval/cell_matrix.h"

namespace scrna::eval {

struct CellChoice {
  std::string label;                         // obs column; empty: none, all cells are taken
  std::string batch;                         // obs column; empty: none
  std::vector<std::string> excluded_labels;  // values that are no cell type ("unlabelled")
  int64_t min_label_cells = 10;              // rarer labels are left out
  int64_t max_cells = 0;                     // subsample to so many, evenly at random; 0: all
  uint64_t seed = 0;
};

struct LabelledCells {
  std::vector<int64_t> cells;  // rows of the file, ascending
  Labels labels;               // without a label column: one name for all, "all cells"
  std::optional<Labels> batches;
  int64_t file_cells = 0;
  int64_t unlabelled = 0, excluded = 0;  // cells
  std::vector<std::string> rare_labels;  // left out
  int64_t rare_cells = 0;
  int64_t without_batch = 0;
  int64_t without_embedding = 0;
  int64_t not_sampled = 0;               // left out by max_cells
};

/// Logs what was left out. Throws DataError: a column that is missing or is no categories, an excluded label that no cell
/// has, fewer than two labels left, one batch only.
LabelledCells choose_cells(const data::AnnDataFile& file, const CellChoice& choice);

/// "KEY", "obsm/KEY" (of the file itself), "FILE.h5ad:KEY" or "FILE.h5ad:obsm/KEY".
struct EmbeddingPlace {
  std::filesystem::path file;  // empty: the file that is evaluated
  std::string key;
};
/// Throws ConfigError when it is none of these.
EmbeddingPlace parse_embedding_place(const std::string& text);

/// Rows for the chosen cells. From another file they are found by obs_names. Throws DataError when a chosen cell is not
/// there (with how many and the first), when names repeat, and what data::read_obsm throws.
CellMatrix read_embedding(const data::AnnDataFile& file, const EmbeddingPlace& place, const std::vector<int64_t>& cells);

struct NamedEmbedding {
  std::string name;
  CellMatrix values;
};

/// Leaves out, of the cells and of every embedding, the cells that are NaN in some embedding, so that all are measured on
/// the same cells; then labels that became too rare. Logs how many and of which embedding. Throws DataError when fewer
/// than two labels remain (with a label column) or no cell does.
void leave_out_missing(LabelledCells& cells, std::vector<NamedEmbedding>& embeddings, const CellChoice& choice);

/// The baseline (log_normalised.h) and which matrix it comes from.
struct Baseline {
  std::optional<CellMatrix> scores;  // none: no counts and nothing log-normalised
  std::string matrix;
  bool was_normalised = false;
  std::string problem;               // why there is none
};
Baseline make_baseline(const data::AnnDataFile& file, const std::string& matrix, const std::vector<int64_t>& cells);

}  // namespace scrna::eval
