// The statistical model of synthetic cells. Each gene has a log-normal base rate; three of five genes belong
// to a program, a group that rises and falls together. A cell type switches some programs on and the rest
// down, a donor scales every gene by a batch effect, and each cell has its own activity of each program:
// hidden genes can be guessed from visible ones. The count of gene g in a cell is zero with the dropout
// probability c / (c + mu), else negative-binomial with mean mu = (cell's depth) x (rate in its type) x
// (donor's effect) x (cell's activity) and size 1, 2 or 4. The depth is solved for the wanted number of
// expressed genes. Sizes are powers of two because (1 + mu / r)^-r then needs no logarithm: the common case,
// a zero, costs a few multiplications and a quarter of a Philox call. Rejected: drawing molecules one by one
// from an alias table, whose cost grows with depth (seconds per cell at 16,000 genes).
#pragma once

#include <cstdint>
#include <vector>

#include "lib/data/anndata.h"
#include "lib/data/synthesize.h"

namespace scrna::data {

class CellModel {
 public:
  explicit CellModel(const SynthesizeOptions& options);

  struct CellInfo {
    int32_t cell_type = 0;
    int32_t donor = 0;
    int64_t total_counts = 0;
    int64_t expressed_genes = 0;
  };
  /// Memory of one thread.
  struct Scratch {
    std::vector<float> mean, keep, zero;  // [genes]
    std::vector<float> activity;          // [programs + 1]
  };
  /// Appends cell `index` to `out`: its genes ascending with their counts.
  CellInfo append(int64_t index, Scratch& scratch, CellBlock& out) const;
  /// Program of each gene, num_programs for none; and which programs each cell type has switched on: for var
  /// and tests.
  [[nodiscard]] const std::vector<int32_t>& gene_programs() const { return gene_program_; }
  [[nodiscard]] bool is_active(int64_t cell_type, int64_t program) const;

 private:
  void make_genes();
  void make_cell_types();
  void make_depth_table();
  [[nodiscard]] double wanted_genes(double normal) const;
  [[nodiscard]] double depth_for(int32_t cell_type, double expressed_genes) const;

  SynthesizeOptions options_;
  std::vector<int32_t> gene_program_;  // [genes]
  std::vector<float> inverse_size_;    // [genes] 1 / r, r in {1, 2, 4}
  std::vector<float> base_rate_;       // [genes]
  std::vector<float> type_rate_;       // [cell_types, genes] sums to 1 over genes
  std::vector<float> donor_effect_;    // [donors, genes]
  std::vector<double> type_share_;     // [donors, cell_types] cumulative
  std::vector<double> depth_genes_;    // [cell_types, depths] expected number of expressed genes
};

}  // namespace scrna::data
