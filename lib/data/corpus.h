// The cells a run trains on and evaluates: sources mapped to the vocabulary, cells with too few genes left
// out, the rest split into training and held-out cells. Opening takes one pass over the files, which also
// yields hit rates and truncation loss; afterwards one byte per cell stays in memory. All of it is a pure
// function of the files and the configuration.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/data/cell_source.h"
#include "lib/data/token_cache.h"
#include "lib/data/tokenizer.h"
#include "lib/data/vocabulary.h"

namespace scrna::data {

enum class CellRole : uint8_t { kLeftOut = 0, kTraining = 1, kHeldout = 2 };

/// A run of neighbouring cells of one source that are read together.
struct CellRange {
  int32_t source = 0;
  int32_t num_rows = 0;  // rows of the file
  int64_t first_row = 0;
  int32_t num_cells = 0;  // rows among them that have the wanted role
};

/// A gene of a file that the vocabulary does not have.
struct MissedGene {
  std::string id;     // as the file names it
  double counts = 0;  // of its column, over the chosen cells
};

/// The ten largest of `missed_counts` ([columns], 0 where the vocabulary knows the gene), by falling counts,
/// then by id. Columns of the same id are one gene.
std::vector<MissedGene> largest_misses(const std::vector<double>& missed_counts,
                                       const std::vector<std::string>& ids);

/// What was found in one file.
struct SourceReport {
  std::string name;
  std::string matrix;
  int64_t cells = 0;
  int64_t chosen_cells = 0;  // by data.filter
  int64_t training_cells = 0;
  int64_t heldout_cells = 0;
  int64_t genes = 0;                       // columns of the matrix
  int64_t known_genes = 0;                 // of them in the vocabulary
  int64_t repeated_entries = 0;            // stored more than once for one cell and gene, and summed
  std::vector<MissedGene> largest_misses;  // at most ten, by falling counts
  TokenizerReport tokens;                  // over the chosen cells of the file
};

class Corpus {
 public:
  /// Reads every source once, or, with data.cache, takes what that pass would find from the cache. Throws
  /// DataError: a cache of other settings or files, no gene of the vocabulary, hit rate below
  /// data.min_gene_hit_rate, no usable cell, no cell left to train on, nothing held out although asked for.
  Corpus(std::vector<CellSource> sources, Vocabulary vocabulary, const DataConfig& data,
         const TokenizerConfig& tokenizer, const Progress& progress = {});

  [[nodiscard]] const Vocabulary& vocabulary() const { return vocabulary_; }
  [[nodiscard]] const DataConfig& config() const { return config_; }
  [[nodiscard]] const TokenizerConfig& tokenizer_config() const { return tokenizer_config_; }
  [[nodiscard]] int64_t num_training_cells() const { return num_training_cells_; }
  [[nodiscard]] int64_t num_heldout_cells() const { return num_heldout_cells_; }
  [[nodiscard]] const std::vector<SourceReport>& reports() const { return reports_; }
  [[nodiscard]] TokenizerReport total_report() const;
  /// [V] How many training cells hold each token after truncation, masks aside: all of them, counted while
  /// opening. For the gene-frequency baseline, -mean over masked targets t of log((n_t + 1) / (sum n + V)).
  [[nodiscard]] const std::vector<int64_t>& token_frequencies() const { return token_frequencies_; }
  /// Tokens of the longest cell after truncation: what positions and memory must suffice for.
  [[nodiscard]] int64_t longest_cell_tokens() const { return longest_cell_tokens_; }

  [[nodiscard]] int32_t num_sources() const { return static_cast<int32_t>(sources_.size()); }
  [[nodiscard]] const CellSource& source(int32_t index) const {
    return sources_[static_cast<std::size_t>(index)];
  }
  [[nodiscard]] const GeneMap& gene_map(int32_t source) const {
    return gene_maps_[static_cast<std::size_t>(source)];
  }
  [[nodiscard]] CellRole role(int32_t source, int64_t row) const {
    return roles_[static_cast<std::size_t>(source)][static_cast<std::size_t>(row)];
  }
  /// 32 bits of file (name without folder, matrix, shape; the order in case of repeats), 32 bits of row: the
  /// same cell keeps its id when folders move or files are added.
  [[nodiscard]] uint64_t cell_id(int32_t source, int64_t row) const;
  /// nullptr without data.cache.
  [[nodiscard]] const TokenCache* cache() const { return cache_.get(); }
  /// The settings of the split, as text: what token_frequencies() depend on besides the cells.
  [[nodiscard]] std::string split_text() const;
  /// For the passes after the first: throws DataError when a usable cell now has no gene, or more tokens than
  /// the longest cell had: somebody has written to the file since.
  void check_unchanged(int32_t source, int64_t num_tokens) const;
  /// Non-empty runs of `block_cells` rows with their number of cells of that role, in file order.
  [[nodiscard]] std::vector<CellRange> ranges(CellRole role, int64_t block_cells) const;

 private:
  void assign_roles();
  void set_heldout(const std::function<bool(std::size_t source, std::size_t row)>& is_heldout);
  void scan(const Progress& progress);
  void take_from_cache();
  void check_hit_rate(std::size_t source) const;
  void check_split();

  std::vector<CellSource> sources_;
  Vocabulary vocabulary_;
  DataConfig config_;
  TokenizerConfig tokenizer_config_;
  std::vector<GeneMap> gene_maps_;
  std::vector<uint32_t> source_keys_;
  std::vector<std::vector<CellRole>> roles_;  // [sources][cells]
  std::vector<SourceReport> reports_;
  int64_t num_training_cells_ = 0;
  int64_t num_heldout_cells_ = 0;
  int64_t longest_cell_tokens_ = 0;
  std::vector<int64_t> token_frequencies_;  // [V]
  std::shared_ptr<const TokenCache> cache_;
};

}  // namespace scrna::data
