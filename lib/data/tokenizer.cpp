#include "lib/data/tokenizer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace scrna::data {
namespace {

// Below 2^31 as scores are positive; the larger the score the smaller the key.
uint32_t key_of(float score) { return ~std::bit_cast<uint32_t>(score); }

// Sums in four lanes, since one chain of additions would wait for itself.
class Sum {
 public:
  void add(std::size_t lane, float value) { lanes_[lane % 4] += value; }
  [[nodiscard]] double total() const { return (lanes_[0] + lanes_[1]) + (lanes_[2] + lanes_[3]); }

 private:
  std::array<double, 4> lanes_{};
};

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
  medians_.assign(static_cast<std::size_t>(vocabulary.size()), 1.0F);
  for (int32_t token = Vocabulary::kNumSpecial; token < vocabulary.size(); ++token) {
    medians_[static_cast<std::size_t>(token)] = vocabulary.gene(token).median;
  }
  count_of_token_.assign(medians_.size(), 0.0F);
}

CellSummary Tokenizer::tokenize(const GeneMap& map, std::span<const int32_t> genes,
                                std::span<const float> values, std::vector<int32_t>& out) {
  CellSummary cell;
  collect<true>(map, genes, values, cell);
  const std::size_t begin = append_sorted(out);
  cell.vocabulary_genes = static_cast<int64_t>(num_collected_);
  cell.kept_genes = static_cast<int64_t>(out.size() - begin);
  cell.kept_counts = cell.kept_genes == cell.vocabulary_genes
                         ? cell.vocabulary_counts
                         : counts_of(std::span<const int32_t>(out).subspan(begin));
  return cell;
}

int64_t Tokenizer::append(const GeneMap& map, std::span<const int32_t> genes, std::span<const float> values,
                          std::vector<int32_t>& out) {
  CellSummary unused;
  collect<false>(map, genes, values, unused);
  append_sorted(out);
  return static_cast<int64_t>(num_collected_);
}

// What was collected, in its order; returns where in `out` the genes begin.
std::size_t Tokenizer::append_sorted(std::vector<int32_t>& out) {
  for (std::size_t i = 0; i < num_collected_; ++i)
    keys_[i] = key_of(counts_[i] / medians_[static_cast<std::size_t>(tokens_[i])]);
  if (add_cls_) out.push_back(Vocabulary::kCls);
  const std::size_t begin = out.size(), num_kept = std::min(num_collected_, max_genes_);
  out.resize(begin + num_kept);
  sorter_.smallest_first(std::span(keys_).first(num_collected_),
                         std::span<const int32_t>(tokens_).first(num_collected_), num_kept,
                         out.data() + begin);
  return begin;
}

// The genes of the vocabulary that the cell expresses, with their counts.
template <bool kSummary>
void Tokenizer::collect(const GeneMap& map, std::span<const int32_t> genes, std::span<const float> values,
                        CellSummary& cell) {
  if (keys_.size() < genes.size()) {
    keys_.resize(genes.size());
    counts_.resize(genes.size());
    tokens_.resize(genes.size());
  }
  Sum all, known;
  std::size_t count = 0;
  int64_t num_expressed = 0;
  for (std::size_t i = 0; i < genes.size(); ++i) {
    const bool is_expressed = values[i] > 0;  // false for NaN
    const float value = is_expressed ? values[i] : 0.0F;
    const int32_t token = map.tokens[static_cast<std::size_t>(genes[i])];
    const bool is_kept = is_expressed && token != Vocabulary::kUnk;
    if constexpr (kSummary) {
      num_expressed += is_expressed ? 1 : 0;
      all.add(i, value);
      known.add(i, is_kept ? value : 0.0F);
    }
    tokens_[count] = token;  // overwritten by the next one when not kept
    counts_[count] = value;
    count += is_kept ? 1 : 0;
  }
  cell.expressed_genes = num_expressed;
  cell.counts = all.total();
  cell.vocabulary_counts = known.total();
  num_collected_ = map.has_duplicates ? sum_duplicates(count) : count;
}

// Columns of the same gene become one, in the place of the first; their counts are summed in the order of
// columns.
std::size_t Tokenizer::sum_duplicates(std::size_t count) {
  std::size_t num_genes = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const int32_t token = tokens_[i];
    float& sum = count_of_token_[static_cast<std::size_t>(token)];
    if (sum == 0) tokens_[num_genes++] = token;
    sum += counts_[i];
  }
  for (std::size_t i = 0; i < num_genes; ++i)
    counts_[i] = std::exchange(count_of_token_[static_cast<std::size_t>(tokens_[i])], 0.0F);
  return num_genes;
}

// Of some of the tokens collected.
double Tokenizer::counts_of(std::span<const int32_t> some_tokens) {
  for (std::size_t i = 0; i < num_collected_; ++i)
    count_of_token_[static_cast<std::size_t>(tokens_[i])] = counts_[i];
  Sum sum;
  for (std::size_t i = 0; i < some_tokens.size(); ++i)
    sum.add(i, count_of_token_[static_cast<std::size_t>(some_tokens[i])]);
  for (std::size_t i = 0; i < num_collected_; ++i) count_of_token_[static_cast<std::size_t>(tokens_[i])] = 0;
  return sum.total();
}

}  // namespace scrna::data
