// The corpus from a cache of tokens (data.cache): what the pass over the files would find, without the pass.
#include "lib/core/log.h"
#include "lib/data/corpus.h"
#include "lib/data/corpus_reports.h"

namespace scrna::data {

std::string Corpus::split_text() const {
  return fmt::format("fraction {}, column '{}', whole files {}, seed {}", config_.heldout_fraction,
                     config_.heldout_column, config_.heldout_whole_files, config_.heldout_seed);
}

// What scan() of all cells would find. The roles are of this run's split; cells without tokens were left out when
// the cache was made. Where a run without a cache would look at a part only, they keep their places in the order,
// so that it is the same order.
void Corpus::take_from_cache() {
  cache_ = TokenCache::open(config_.cache,
                            cache_identity(sources_, vocabulary_.hash(), config_, tokenizer_config_),
                            sources_, vocabulary_.size());
  const CacheContents& contents = cache_->contents();
  const std::vector<SourceReport> reports = reports_from_json(contents.reports_json);
  longest_cell_tokens_ = contents.longest_cell_tokens;
  for (std::size_t source = 0; source < sources_.size(); ++source) {
    reports_[source].tokens = reports[source].tokens;
    reports_[source].repeated_entries = reports[source].repeated_entries;
    reports_[source].unusable_cells = reports[source].unusable_cells;
    reports_[source].largest_misses = reports[source].largest_misses;
    for (std::size_t row = 0; row < roles_[source].size(); ++row) {
      CellRole& role = roles_[source][row];
      if (cache_->num_tokens(static_cast<int64_t>(source), static_cast<int64_t>(row)) > 0) {
        num_counted_cells_ += role == CellRole::kTraining ? 1 : 0;
      } else if (is_whole_[source]) {
        role = CellRole::kLeftOut;
      }
    }
    check_hit_rate(source);
  }
  log::info("[data] tokens from {}", config_.cache);
  if (contents.split == split_text()) {
    token_frequencies_ = contents.token_frequencies;
    return;
  }
  log::info("[data] the split is not the cache's: counting tokens again");
  token_frequencies_.assign(static_cast<std::size_t>(vocabulary_.size()), 0);
  std::vector<int32_t> tokens;
  for (std::size_t source = 0; source < sources_.size(); ++source) {
    for (std::size_t row = 0; row < roles_[source].size(); ++row) {
      if (roles_[source][row] != CellRole::kTraining) continue;
      tokens.clear();
      cache_->append(static_cast<int64_t>(source), static_cast<int64_t>(row), tokens);
      for (const int32_t token : tokens) ++token_frequencies_[static_cast<std::size_t>(token)];
    }
    cache_->forget(static_cast<int64_t>(source), 0, std::ssize(roles_[source]));
  }
}

}  // namespace scrna::data
