// The sections `data`, `tokenizer` and `masking` of a configuration. Tokenization follows the rank-value
// family of arXiv 2604.27124 and Geneformer; 15 % of the tokens are masked, as in the paper.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/config/bound.h"

namespace scrna::data {

struct DataConfig {
  std::vector<std::string> files;
  std::string matrix = "auto";
  std::string genome;
  std::string gene_column;
  std::string gene_map;
  std::string filter;
  std::string vocabulary;
  int64_t vocabulary_min_cells = 1;
  std::string cache;
  double min_gene_hit_rate = 0.5;
  int64_t scan_cells = 16384;
  bool allow_normalized = false;
  int64_t min_genes = 10;
  double heldout_fraction = 0.1;
  std::string heldout_column;
  bool heldout_whole_files = false;
  uint64_t heldout_seed = 0;
  int64_t heldout_cells = 2000;
  std::string sampling_column;
  bool sampling_files = false;
  double sampling_temperature = 1;
  std::vector<std::string> sampling_weights;
  int64_t tokens_per_micro_batch = 16384;
  int64_t shuffle_block_cells = 128;
  int64_t shuffle_window_cells = 8192;
  int64_t num_workers = 2;

  template <class V>
  void visit(V&& v) {
    v("files", files,
      ".h5ad files (or 10x .h5) to train on: paths or patterns with * ? [], a pattern's matches sorted by "
      "name");
    v("matrix", matrix,
      "matrix that holds the raw counts: X, raw/X, layers/<name>, or auto: found and reported");
    v("genome", genome,
      "genome to take of 10x .h5 files, needed where an old one has several; empty: all genomes of the "
      "features; "
      ".h5ad files have none and pass it over");
    v("gene_column", gene_column, "var column that holds the gene ids; empty: found and reported");
    v("gene_map", gene_map,
      "table of other names of genes, two columns 'alias' and 'id' separated by a tab, applied to every "
      "file's gene "
      "ids; empty: none");
    v("filter", filter,
      "obs expression that chooses cells, for example \"is_primary_data == true and tissue in ['blood', "
      "'lung']\"; "
      "empty: all cells (lib/data/README.md)");
    v("vocabulary", vocabulary, "vocabulary.tsv to use; empty: built from data.files in one pass");
    v("vocabulary_min_cells", vocabulary_min_cells,
      "cells that must express a gene for it to enter a vocabulary built from data.files",
      config::at_least(1));
    v("cache", cache,
      "folder of tokens made by scrna-train cache from the same files and settings, read instead of the "
      "matrices; "
      "needs data.vocabulary, for example the cache's vocabulary.tsv; empty: none");
    v("min_gene_hit_rate", min_gene_hit_rate,
      "part of a file's counts that must lie in genes of the vocabulary; a file below is refused",
      config::between(0, 1));
    v("scan_cells", scan_cells,
      "cells looked at before the first step: files with no more cells together are read whole, of larger "
      "ones "
      "hit rates are estimated, and the rest is checked when it is read",
      config::at_least(0));
    v("allow_normalized", allow_normalized, "accept a matrix that does not hold raw counts");
    v("min_genes", min_genes, "cells that express fewer genes of the vocabulary are left out",
      config::at_least(1));
    v("heldout_fraction", heldout_fraction, "part of the cells kept out of training for evaluation; 0: none",
      config::from_to_below(0, 1));
    v("heldout_column", heldout_column,
      "obs column whose groups (donors, batches) are held out whole; empty: single cells are");
    v("heldout_whole_files", heldout_whole_files,
      "hold out whole files instead of cells or groups of heldout_column");
    v("heldout_seed", heldout_seed,
      "seed of the split; apart from train.seed, so that repeats share their held-out cells");
    v("heldout_cells", heldout_cells, "held-out cells evaluated, at most", config::at_least(1));
    v("sampling_column", sampling_column,
      "obs column (tissue, cell type, data set) whose groups are trained on more or less often than they are "
      "large; empty: none (lib/data/README.md)");
    v("sampling_files", sampling_files, "the files are the groups, instead of sampling_column");
    v("sampling_temperature", sampling_temperature,
      "T: a group of n cells gets a part of each epoch proportional to n^(1/T). 1: as the cells are; 2: "
      "square "
      "roots of sizes; large: all groups alike",
      config::between(1, 1e6));
    v("sampling_weights", sampling_weights,
      "factors of that part for single groups, for example [blood=2, 'T cell=0.5']; 0: never trained on");
    v("tokens_per_micro_batch", tokens_per_micro_batch,
      "tokens packed into one forward pass, at most; a longer cell makes its own pass", config::at_least(1));
    v("shuffle_block_cells", shuffle_block_cells, "neighbouring cells of a file that are read together",
      config::between(1, 65536));
    v("shuffle_window_cells", shuffle_window_cells,
      "cells whose blocks are mixed in memory; a larger window shuffles better and needs window x max_tokens "
      "x 8 bytes",
      config::between(1, 16777216));
    v("num_workers", num_workers, "threads that read and tokenize ahead of the training",
      config::between(1, 256));
  }
  /// Whether groups of cells are drawn at their own rates (sampling.h).
  [[nodiscard]] bool is_sampled() const { return sampling_files || !sampling_column.empty(); }
  /// Throws ConfigError for a filter or weights that cannot be understood, and for two ways to split or to
  /// group at once.
  void validate(const std::string& path) const;
};

struct TokenizerConfig {
  int64_t max_tokens = 2048;
  bool add_cls = false;

  template <class V>
  void visit(V&& v) {
    v("max_tokens", max_tokens, "tokens of a cell that are kept, highest first (with <cls>, if added)",
      config::between(8, 1048576));
    v("add_cls", add_cls, "put <cls> before the genes of each cell; the paper does not");
  }
};

struct MaskingConfig {
  double fraction = 0.15;

  template <class V>
  void visit(V&& v) {
    v("fraction", fraction, "part of a cell's gene tokens replaced by <mask>, rounded, at least one",
      config::Bound{.low = 0, .high = 1, .low_is_excluded = true});
  }
};

}  // namespace scrna::data
