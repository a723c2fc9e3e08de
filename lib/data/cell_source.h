// One matrix of counts with its gene ids: what the vocabulary is built from and what the corpus tokenizes.
// Usually one per .h5ad file; tests make them from memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/data/anndata.h"
#include "lib/data/data_config.h"
#include "lib/data/gene_ids.h"

namespace scrna::data {

class Vocabulary;

/// Called now and then during a long pass: what is done ("vocabulary"), cells so far, cells in all.
using Progress = std::function<void(std::string_view what, int64_t cells, int64_t total_cells)>;

struct CellSource {
  std::string name;  // path as the user wrote it or the pattern found it; for messages
  std::shared_ptr<const CountMatrix> matrix;
  GeneIds gene_ids;          // one per gene of the matrix
  CategoryColumn groups;     // [cells] of data.heldout_column; empty codes without one
  CategoryColumn sampling;   // [cells] of data.sampling_column; empty codes without one
  bool is_counts = false;    // only whole numbers are accepted
  std::vector<bool> chosen;  // [cells] by data.filter; empty: all

  [[nodiscard]] bool is_chosen(int64_t cell) const {
    return chosen.empty() || chosen[static_cast<std::size_t>(cell)];
  }
  /// True when one of the cells [first, first + count) is chosen.
  [[nodiscard]] bool any_chosen(int64_t first, int64_t count) const;
};

/// Throws DataError naming cell, gene and value: not finite, negative, or a fraction in a matrix that was
/// taken for counts. Cells that are not chosen are passed over. The choice of a matrix looks at a sample;
/// every pass over all cells calls this, so that one batch of normalised cells among thousands of raw ones
/// does not slip through.
void check_values(const CellSource& source, const CellBlock& block);

/// Paths of data.files in the order given, a pattern's matches sorted, repeats dropped. Throws DataError for
/// a path that does not exist or a pattern without match, ConfigError for an empty list.
std::vector<std::filesystem::path> resolve_files(const std::vector<std::string>& patterns);

/// Opens every file, chooses its matrix, its gene ids and its cells, and logs the choices with their reasons.
/// With data.gene_column empty, a file whose ids are of another kind than the given vocabulary's (or, without
/// one, than the other files') changes to a var column that fits, if it has one. Throws DataError for a file
/// that cannot be read, has no raw counts (unless data.allow_normalized), or lacks a named column; when
/// data.filter chooses no cell of any file; and for a data.gene_map that is damaged.
std::vector<CellSource> open_sources(const DataConfig& config, const Vocabulary* vocabulary = nullptr);

}  // namespace scrna::data
