#include "lib/data/rank_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lib/core/error.h"

namespace scrna::data {
namespace {

constexpr double kCostPerToken = 1 << 20;  // so that the weight of a square is a whole number, not 0

}  // namespace

void RankPlan::begin_step() { std::ranges::fill(loads_, 0); }

std::vector<int32_t> RankPlan::assign(std::span<const int64_t> costs) {
  std::vector<std::size_t> largest_first(costs.size());
  std::iota(largest_first.begin(), largest_first.end(), std::size_t{0});
  std::ranges::stable_sort(largest_first, std::ranges::greater(),
                           [&](std::size_t cell) { return costs[cell]; });
  std::vector<int32_t> ranks(costs.size());
  for (const std::size_t cell : largest_first) {
    SCRNA_CHECK(costs[cell] > 0, "a cell that costs {}", costs[cell]);
    const auto least = std::ranges::min_element(loads_);  // the first of equals
    *least += costs[cell];
    ranks[cell] = static_cast<int32_t>(least - loads_.begin());
  }
  return ranks;
}

int64_t cell_cost(int64_t tokens, double squared_weight) {
  return tokens * static_cast<int64_t>(kCostPerToken) +
         tokens * tokens * std::llround(squared_weight * kCostPerToken);
}

int64_t expected_tokens(const Corpus& corpus, int32_t source, int64_t row) {
  if (corpus.cache() != nullptr) return std::max<int64_t>(1, corpus.cache()->num_tokens(source, row));
  const int64_t entries = corpus.source(source).matrix->stored_entries(row);
  if (entries < 0) return 1;
  const TokenizerConfig& tokenizer = corpus.tokenizer_config();
  return std::clamp<int64_t>(entries + (tokenizer.add_cls ? 1 : 0), 1, tokenizer.max_tokens);
}

}  // namespace scrna::data
