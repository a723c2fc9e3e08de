// The cells a run trains on and evaluates: sources mapped to the vocabulary, cells with too few genes left
// out, the rest split into training and held-out cells. Opening looks at data.scan_cells cells at most,
// spread over the files, for hit rates and truncation loss, and at all of a small corpus (corpus_scan.cpp:
// what is known of a cell before it is read); afterwards one byte per cell stays in memory. All of it is a
// pure function of the files and the configuration.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/data/cell_source.h"
#include "lib/data/sampling.h"
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
  int64_t genes = 0;             // columns of the matrix
  int64_t known_genes = 0;       // of them in the vocabulary
  int64_t repeated_entries = 0;  // stored more than once for one cell and gene, and summed
  int64_t unusable_cells = 0;    // of tokens.cells: fewer genes of the vocabulary than data.min_genes
  std::vector<MissedGene> largest_misses;  // at most ten, by falling counts
  TokenizerReport tokens;                  // over the chosen cells that were looked at
  /// Hit rates, misses and repeats are those of a part of the chosen cells.
  [[nodiscard]] bool is_estimate() const { return tokens.cells < chosen_cells; }
};

class Corpus {
 public:
  /// Looks at data.scan_cells cells, or, with data.cache, takes what a pass over all would find from the
  /// cache. Throws DataError: a cache of other settings or files, no gene of the vocabulary, hit rate below
  /// data.min_gene_hit_rate, no usable cell, no cell left to train on, nothing held out although asked for,
  /// weights of groups that are not there; and
  /// for a value among the cells looked at that no count can be.
  Corpus(std::vector<CellSource> sources, Vocabulary vocabulary, const DataConfig& data,
         const TokenizerConfig& tokenizer, const Progress& progress = {});

  [[nodiscard]] const Vocabulary& vocabulary() const { return vocabulary_; }
  [[nodiscard]] const DataConfig& config() const { return config_; }
  [[nodiscard]] const TokenizerConfig& tokenizer_config() const { return tokenizer_config_; }
  /// Cells an epoch has. Where a source is not whole, some may turn out to have too few genes of the
  /// vocabulary.
  [[nodiscard]] int64_t num_training_cells() const { return num_training_cells_; }
  [[nodiscard]] int64_t num_heldout_cells() const { return num_heldout_cells_; }
  [[nodiscard]] const std::vector<SourceReport>& reports() const { return reports_; }
  [[nodiscard]] TokenizerReport total_report() const;
  /// [V] How many training cells hold each token after truncation, masks aside, among the cells that were
  /// looked at while opening (from a cache: among all). For the gene-frequency baseline, -mean over masked
  /// targets t of log((n_t + 1) / (sum n + V)).
  [[nodiscard]] const std::vector<int64_t>& token_frequencies() const { return token_frequencies_; }
  /// What positions and memory must suffice for: tokens of the longest cell after truncation; or, where a
  /// source is not whole, the most that its stored entries allow.
  [[nodiscard]] int64_t longest_cell_tokens() const { return longest_cell_tokens_; }
  /// Mean tokens of the training cells that token_frequencies() counts; 0 when it counts none.
  [[nodiscard]] double mean_cell_tokens() const;
  /// True when role() is final for every cell of the source: it has at least data.min_genes genes of the
  /// vocabulary, or is left out. False: it has that many stored entries, and only reading it tells
  /// (is_usable()).
  [[nodiscard]] bool is_whole(int32_t source) const { return is_whole_[static_cast<std::size_t>(source)]; }
  [[nodiscard]] bool is_whole() const {
    return std::find(is_whole_.begin(), is_whole_.end(), false) == is_whole_.end();
  }
  /// Whether a cell of this role, now read, has enough genes of the vocabulary.
  [[nodiscard]] bool is_usable(int32_t source, int64_t vocabulary_genes) const {
    return is_whole(source) || vocabulary_genes >= std::max<int64_t>(1, config_.min_genes);
  }

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
  /// Groups whose cells are drawn at their own rates, by name; empty: every training cell once an epoch.
  [[nodiscard]] const std::vector<SamplingGroup>& sampling_groups() const { return sampling_groups_; }
  /// Index into sampling_groups(), of a training cell.
  [[nodiscard]] std::size_t sampling_group(int32_t source, int64_t row) const {
    return sampling_codes_[static_cast<std::size_t>(source)][static_cast<std::size_t>(row)];
  }
  /// nullptr without data.cache.
  [[nodiscard]] const TokenCache* cache() const { return cache_.get(); }
  /// The settings of the split, as text: what token_frequencies() depend on besides the cells.
  [[nodiscard]] std::string split_text() const;
  /// For the passes after the first: throws DataError when a usable cell has no gene, or more tokens than the
  /// longest cell can have: somebody has written to the file since.
  void check_unchanged(int32_t source, int64_t num_tokens) const;
  /// Non-empty runs of `block_cells` rows with their number of cells of that role, in file order.
  [[nodiscard]] std::vector<CellRange> ranges(CellRole role, int64_t block_cells) const;

 private:
  struct Look {
    int64_t first_row = 0, num_rows = 0;
  };
  void plan_scan();
  void assign_roles();
  void set_heldout(const std::function<bool(std::size_t source, std::size_t row)>& is_heldout);
  void scan(const Progress& progress);
  void take_from_cache();
  [[nodiscard]] int64_t most_tokens_by_entries() const;
  void check_hit_rate(std::size_t source) const;
  void check_split();
  void plan_sampling();

  std::vector<CellSource> sources_;
  Vocabulary vocabulary_;
  DataConfig config_;
  TokenizerConfig tokenizer_config_;
  std::vector<GeneMap> gene_maps_;
  std::vector<uint32_t> source_keys_;
  std::vector<std::vector<Look>> looks_;      // [sources] what scan() reads
  std::vector<bool> is_whole_;                // [sources]
  std::vector<std::vector<CellRole>> roles_;  // [sources][cells]
  std::vector<SourceReport> reports_;
  int64_t num_training_cells_ = 0;
  int64_t num_heldout_cells_ = 0;
  int64_t num_counted_cells_ = 0;    // in token_frequencies_
  int64_t most_stored_entries_ = 0;  // of a cell of a source that is not whole
  int64_t longest_cell_tokens_ = 0;
  std::vector<int64_t> token_frequencies_;  // [V]
  std::vector<SamplingGroup> sampling_groups_;
  std::vector<std::vector<uint32_t>> sampling_codes_;  // [sources][cells]; empty without groups
  std::shared_ptr<const TokenCache> cache_;
};

}  // namespace scrna::data
