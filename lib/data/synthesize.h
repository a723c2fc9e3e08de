// Writes an .h5ad file of synthetic cells of any size, streaming: the demo's data when the user gives none,
// and the source of test files. What the cells are like is described in synthesize_model.h. Cell i is a pure
// function of (options, i).
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "lib/config/bound.h"
#include "lib/data/cell_source.h"

namespace scrna::data {

/// How the number of expressed genes varies from cell to cell.
enum class LengthDistribution { kMedian, kCellxgene };
constexpr auto enum_names(LengthDistribution) {
  return std::array{std::pair{std::string_view("median"), LengthDistribution::kMedian},
                    std::pair{std::string_view("cellxgene"), LengthDistribution::kCellxgene}};
}

enum class GeneIdStyle { kEnsembl, kSymbol };
constexpr auto enum_names(GeneIdStyle) {
  return std::array{std::pair{std::string_view("ensembl"), GeneIdStyle::kEnsembl},
                    std::pair{std::string_view("symbol"), GeneIdStyle::kSymbol}};
}

struct SynthesizeOptions {
  int64_t cells = 5000;
  int64_t genes = 4000;
  int64_t cell_types = 8;
  int64_t donors = 4;
  int64_t programs = 24;
  LengthDistribution lengths = LengthDistribution::kMedian;
  int64_t median_genes = 600;
  double genes_spread = 0.35;
  GeneIdStyle gene_ids = GeneIdStyle::kEnsembl;
  uint64_t seed = 0;
  int64_t gzip_level = 2;
  int64_t num_workers = 2;

  template <class V>
  void visit(V&& v) {
    v("cells", cells, "cells to write", config::between(1, 4e9));
    v("genes", genes, "genes of the matrix", config::between(20, 1000000));
    v("cell_types", cell_types, "cell types, the first the most frequent", config::between(1, 1000));
    v("donors", donors, "donors, each with its batch effect", config::between(1, 10000));
    v("programs", programs, "groups of genes that rise and fall together", config::between(4, 1000));
    v("lengths", lengths,
      "number of expressed genes per cell: median (log-normal around median_genes) or cellxgene (as in that "
      "corpus: "
      "log2-normal(10.75, 1.25), 200 to 16,000)");
    v("median_genes", median_genes, "median number of expressed genes of a cell; used with lengths = median",
      config::at_least(10));
    v("genes_spread", genes_spread, "standard deviation of the logarithm of that number",
      config::between(0, 2));
    v("gene_ids", gene_ids, "var index: ensembl or symbol; the other is a var column");
    v("seed", seed, "same seed and options, same cells");
    v("gzip_level", gzip_level, "compression of the file", config::between(0, 9));
    v("num_workers", num_workers, "threads that make cells", config::between(1, 256));
  }
  void validate(const std::string& path) const;
};

struct SynthesizeReport {
  int64_t cells = 0;
  int64_t stored_values = 0;
  double median_genes = 0;  // expressed genes per cell, over the first 100,000 cells
  uint64_t file_bytes = 0;
  double seconds = 0;
};

/// Throws ConfigError for options that contradict each other, DataError when the file cannot be written; then
/// nothing is at `path`. An existing file is replaced.
SynthesizeReport synthesize(const SynthesizeOptions& options, const std::filesystem::path& path,
                            const Progress& progress = {});

}  // namespace scrna::data
