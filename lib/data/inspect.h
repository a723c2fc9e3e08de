// What an .h5ad file holds, seen as training data: its matrices with the counts verdict, its genes and obs
// columns, and one streaming pass over the chosen matrix for the numbers that decide about a context length.
// Memory: some twenty bytes per cell, one block of cells, and one obs column at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "lib/data/anndata.h"
#include "lib/data/cell_source.h"
#include "lib/data/corpus.h"
#include "lib/data/counts_verdict.h"
#include "lib/data/gene_ids.h"

namespace scrna::data {

struct InspectOptions {
  std::string matrix = "auto";
  std::string genome;  // of a 10x .h5 file
  std::string gene_column;
  std::string gene_map;    // file, as data.gene_map
  std::string vocabulary;  // file: report which genes it knows
  std::string filter;      // as data.filter: report how many cells it chooses; all are reported on
  std::vector<int64_t> max_tokens = {2048, 4096, 8192};
};

struct MatrixReport {
  std::string name;
  MatrixLayout layout = MatrixLayout::kCsr;
  std::string type;
  int64_t cells = 0;
  int64_t genes = 0;
  int64_t stored_values = 0;  // entries of a sparse matrix; cells x genes of a dense one
  ValueSurvey survey;
  std::string problem;  // why it cannot be read; then the rest is empty
};

struct ObsColumnReport {
  std::string name;
  ColumnKind kind = ColumnKind::kOther;
  int64_t num_categories = 0;         // distinct values; not of float columns
  std::vector<std::string> examples;  // the first few of them
  double minimum = 0, maximum = 0;    // of numbers; NaN when all are missing
  int64_t num_missing = 0;
  std::string problem;  // why it cannot be read
};

/// Of one number per cell; quantiles interpolate linearly, as numpy.quantile does.
struct Distribution {
  double min = 0, q05 = 0, median = 0, mean = 0, q95 = 0, max = 0;
};

/// What a limit of max_tokens cuts, if every gene of the file is in the vocabulary.
struct ContextReport {
  int64_t max_tokens = 0;
  int64_t truncated_cells = 0;
  int64_t lost_values = 0;  // expressed genes beyond the limit, over all cells
};

struct HistogramBin {
  int64_t low = 0, high = 0;  // low <= genes < high
  int64_t cells = 0;
};

/// What a vocabulary knows of a file.
struct VocabularyReport {
  int64_t size = 0;                        // genes of the vocabulary
  int64_t known_genes = 0;                 // columns of the matrix with a gene of it
  double known_counts = 0;                 // sum of the matrix in them
  double counts = 0;                       // sum of all values above zero
  std::vector<MissedGene> largest_misses;  // at most ten
};

struct InspectReport {
  InspectOptions options;  // as asked for
  std::filesystem::path path;
  uint64_t file_bytes = 0;
  std::string format;  // how AnnData of which age wrote it

  std::vector<MatrixReport> matrices;
  std::string matrix;      // the chosen one
  std::string reason;      // why
  bool is_counts = false;  // a sample of the values says so, and the full pass found nothing else
  MatrixLayout layout = MatrixLayout::kCsr;
  int64_t cells = 0;
  int64_t genes = 0;
  int64_t stored_values = 0;     // entries of a sparse matrix, non-zeros of a dense one
  double total_counts = 0;       // sum of the matrix
  int64_t repeated_entries = 0;  // stored more than once for one cell and gene, and summed
  int64_t strange_values = 0;    // negative, fractional or not finite, in the whole matrix

  GeneIdType gene_id_type = GeneIdType::kOther;
  std::string gene_id_source;
  std::vector<std::string> gene_id_examples;
  int64_t genes_expressed = 0;                // by at least one cell
  int64_t repeated_gene_ids = 0;              // genes whose id an earlier one has; training sums their counts
  std::vector<std::string> removed_prefixes;  // genomes taken off before symbols
  int64_t translated_genes = 0;               // by options.gene_map
  std::optional<VocabularyReport> in_vocabulary;  // with options.vocabulary
  std::optional<int64_t> chosen_cells;            // with options.filter

  std::vector<ObsColumnReport> obs_columns;

  Distribution expressed_genes;  // values above zero of a cell
  Distribution counts_per_cell;
  int64_t empty_cells = 0;  // fewer than DataConfig::min_genes expressed genes: left out of training
  std::vector<HistogramBin> histogram;
  int64_t expressed_values = 0;
  std::vector<ContextReport> contexts;
};

/// Throws DataError for a file, a chosen matrix, a vocabulary or a map of genes that cannot be read,
/// ConfigError for a filter that is no expression. A file without counts is reported, not refused.
InspectReport inspect_file(const std::filesystem::path& path, const InspectOptions& options,
                           const Progress& progress = {});

}  // namespace scrna::data
