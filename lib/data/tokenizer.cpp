#include "lib/data/tokenizer.h"

#include <algorithm>
#include <array>
#include <bit>

#include "lib/core/error.h"

namespace scrna::data {
namespace {

constexpr std::size_t kRadixFrom = 192;  // below, std::sort is faster (measured)
constexpr int kDigitBits = 11;
constexpr std::size_t kBuckets = std::size_t{1} << kDigitBits;
// Shifts of the digits of a key: two of the token (below 2^22), three of the score (31 bits, the sign is 0).
constexpr std::array<int, 5> kShifts = {0, 11, 32, 43, 54};

std::size_t digit_of(uint64_t key, int shift) {
  return static_cast<std::size_t>(key >> shift) & (kBuckets - 1);
}

uint64_t key_of(float score, int32_t token) {
  return (uint64_t{~std::bit_cast<uint32_t>(score)} << 32) | static_cast<uint32_t>(token);
}

// Least significant digit first; digits that are the same in all keys cost nothing.
void radix_sort(std::vector<uint64_t>& keys, std::vector<uint64_t>& other) {
  std::array<std::array<uint32_t, kBuckets>, kShifts.size()> counts{};
  for (const uint64_t key : keys) {
    for (std::size_t d = 0; d < kShifts.size(); ++d) ++counts[d][digit_of(key, kShifts[d])];
  }
  other.resize(keys.size());
  for (std::size_t d = 0; d < kShifts.size(); ++d) {
    std::array<uint32_t, kBuckets>& begin = counts[d];
    if (begin[digit_of(keys[0], kShifts[d])] == keys.size()) continue;
    uint32_t sum = 0;
    for (uint32_t& count : begin) sum += std::exchange(count, sum);
    for (const uint64_t key : keys) other[begin[digit_of(key, kShifts[d])]++] = key;
    keys.swap(other);
  }
}

}  // namespace

GeneMap map_genes(const Vocabulary& vocabulary, std::span<const std::string> gene_ids) {
  GeneMap map;
  map.tokens.reserve(gene_ids.size());
  std::vector<bool> seen(static_cast<std::size_t>(vocabulary.size()));
  for (const std::string& id : gene_ids) {
    const int32_t token = id.empty() ? Vocabulary::kUnk : vocabulary.find(id);
    map.tokens.push_back(token);
    if (token == Vocabulary::kUnk) continue;
    ++map.num_known;
    if (seen[static_cast<std::size_t>(token)]) map.has_duplicates = true;
    seen[static_cast<std::size_t>(token)] = true;
  }
  return map;
}

void TokenizerReport::add(const CellSummary& cell) {
  ++cells;
  sum.expressed_genes += cell.expressed_genes;
  sum.vocabulary_genes += cell.vocabulary_genes;
  sum.kept_genes += cell.kept_genes;
  sum.counts += cell.counts;
  sum.vocabulary_counts += cell.vocabulary_counts;
  sum.kept_counts += cell.kept_counts;
}

void TokenizerReport::add(const TokenizerReport& report) {
  const int64_t total = cells + report.cells;
  add(report.sum);
  cells = total;
}

namespace {
double part(double some, double all) { return all > 0 ? some / all : 0; }
}  // namespace

double TokenizerReport::gene_hit_rate() const {
  return part(static_cast<double>(sum.vocabulary_genes), static_cast<double>(sum.expressed_genes));
}
double TokenizerReport::count_hit_rate() const { return part(sum.vocabulary_counts, sum.counts); }
double TokenizerReport::truncated_genes() const {
  return part(static_cast<double>(sum.vocabulary_genes - sum.kept_genes),
              static_cast<double>(sum.vocabulary_genes));
}
double TokenizerReport::truncated_counts() const {
  return part(sum.vocabulary_counts - sum.kept_counts, sum.vocabulary_counts);
}

Tokenizer::Tokenizer(const Vocabulary& vocabulary, const TokenizerConfig& config)
    : max_genes_(static_cast<std::size_t>(config.max_tokens - (config.add_cls ? 1 : 0))),
      add_cls_(config.add_cls) {
  SCRNA_CHECK(vocabulary.size() <= 1 << (2 * kDigitBits), "{} tokens do not fit the sort key",
              vocabulary.size());
  medians_.assign(static_cast<std::size_t>(vocabulary.size()), 1.0F);
  for (int32_t token = Vocabulary::kNumSpecial; token < vocabulary.size(); ++token) {
    medians_[static_cast<std::size_t>(token)] = vocabulary.gene(token).median;
  }
  counts_.assign(medians_.size(), 0.0F);
}

CellSummary Tokenizer::tokenize(const GeneMap& map, std::span<const int32_t> genes,
                                std::span<const float> values, std::vector<int32_t>& out) {
  CellSummary cell;
  tokens_.clear();
  for (std::size_t i = 0; i < genes.size(); ++i) {
    const float value = values[i];
    if (!(value > 0)) continue;
    ++cell.expressed_genes;
    cell.counts += value;
    const int32_t token = map.tokens[static_cast<std::size_t>(genes[i])];
    if (token == Vocabulary::kUnk) continue;
    cell.vocabulary_counts += value;
    float& count = counts_[static_cast<std::size_t>(token)];
    if (count == 0) tokens_.push_back(token);
    count += value;
  }
  keys_.resize(tokens_.size());
  for (std::size_t i = 0; i < tokens_.size(); ++i) {
    const auto token = static_cast<std::size_t>(tokens_[i]);
    keys_[i] = key_of(counts_[token] / medians_[token], tokens_[i]);
  }
  sort_keys();
  const std::size_t num_kept = std::min(keys_.size(), max_genes_);
  cell.vocabulary_genes = static_cast<int64_t>(keys_.size());
  cell.kept_genes = static_cast<int64_t>(num_kept);
  cell.kept_counts = cell.vocabulary_counts;
  if (add_cls_) out.push_back(Vocabulary::kCls);
  const std::size_t begin = out.size();
  out.resize(begin + num_kept);
  for (std::size_t i = 0; i < num_kept; ++i)
    out[begin + i] = static_cast<int32_t>(static_cast<uint32_t>(keys_[i]));
  for (std::size_t i = num_kept; i < keys_.size(); ++i) {
    cell.kept_counts -= counts_[static_cast<std::size_t>(static_cast<uint32_t>(keys_[i]))];
  }
  for (const int32_t token : tokens_) counts_[static_cast<std::size_t>(token)] = 0;
  return cell;
}

void Tokenizer::sort_keys() {
  if (keys_.size() < kRadixFrom) {
    std::sort(keys_.begin(), keys_.end());
  } else {
    radix_sort(keys_, other_);
  }
}

}  // namespace scrna::data
