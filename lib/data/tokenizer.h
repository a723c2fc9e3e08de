// Rank tokenizer: a cell becomes the ids of its expressed vocabulary genes, most over-expressed first. The
// score of a gene is its count normalised to 10,000 per cell (over all genes of the matrix, also those
// outside the vocabulary) divided by the gene's median. The cell's factor does not change the order, so the
// key is float32(count) / float32(median), a correctly rounded quotient: equal scores compare equal. Ties go
// to the lower token id. Source: Geneformer, TEDDY, arXiv 2604.27124. The sort is rank_sort.h; nothing is
// allocated per cell once the longest was met.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lib/data/data_config.h"
#include "lib/data/rank_sort.h"
#include "lib/data/vocabulary.h"

namespace scrna::data {

/// From the columns of one file's matrix to tokens.
struct GeneMap {
  std::vector<int32_t> tokens;  // [matrix genes] token, or Vocabulary::kUnk
  int64_t num_known = 0;        // columns with a token
  bool has_duplicates = false;  // several columns share a token: their counts are summed
};
GeneMap map_genes(const Vocabulary& vocabulary, std::span<const std::string> gene_ids);

/// What tokenizing one cell kept and lost. Counts are raw.
struct CellSummary {
  int64_t expressed_genes = 0;   // columns above zero, in the vocabulary or not
  int64_t vocabulary_genes = 0;  // distinct genes of the vocabulary above zero
  int64_t kept_genes = 0;        // after truncation to max_tokens
  double counts = 0;             // over all columns
  double vocabulary_counts = 0;
  double kept_counts = 0;
};

/// Sums over cells: hit rates and truncation loss, as reported per file.
struct TokenizerReport {
  int64_t cells = 0;
  CellSummary sum;

  void add(const CellSummary& cell);
  void add(const TokenizerReport& other);
  [[nodiscard]] double gene_hit_rate() const;     // expressed genes that have a token
  [[nodiscard]] double count_hit_rate() const;    // counts that lie in them
  [[nodiscard]] double truncated_genes() const;   // part of the expressed vocabulary genes cut by max_tokens
  [[nodiscard]] double truncated_counts() const;  // part of their counts
};

/// Thread-compatible: one Tokenizer per thread (it owns scratch memory); the vocabulary must outlive it.
class Tokenizer {
 public:
  Tokenizer(const Vocabulary& vocabulary, const TokenizerConfig& config);

  /// Appends the cell's tokens to `out`: [<cls>] then genes, at most max_tokens. genes, values [nnz] are one
  /// row of a CellBlock of the map's file.
  CellSummary tokenize(const GeneMap& map, std::span<const int32_t> genes, std::span<const float> values,
                       std::vector<int32_t>& out);
  /// The same tokens without their summary, for the passes that do not report. Returns the cell's distinct
  /// genes of the vocabulary before they are cut.
  int64_t append(const GeneMap& map, std::span<const int32_t> genes, std::span<const float> values,
              std::vector<int32_t>& out);

 private:
  template <bool kSummary>
  void collect(const GeneMap& map, std::span<const int32_t> genes, std::span<const float> values,
               CellSummary& cell);
  std::size_t sum_duplicates(std::size_t count);
  std::size_t append_sorted(std::vector<int32_t>& out);
  double counts_of(std::span<const int32_t> some_tokens);

  std::vector<float> medians_;         // [V]
  std::vector<float> count_of_token_;  // [V] scratch, zero between uses
  // Of the cell at hand, the first num_collected_ of each: genes in the order of columns.
  std::vector<int32_t> tokens_;
  std::vector<float> counts_;
  std::vector<uint32_t> keys_;
  std::size_t num_collected_ = 0;
  RankSorter sorter_;
  std::size_t max_genes_;
  bool add_cls_;
};

}  // namespace scrna::data
