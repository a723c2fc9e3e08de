#include "lib/data/sampling.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>

#include "lib/core/error.h"
#include "lib/core/random.h"
#include "lib/data/corpus.h"

namespace scrna::data {

std::vector<std::pair<std::string, double>> parse_sampling_weights(const std::vector<std::string>& texts,
                                                                   const std::string& setting) {
  std::vector<std::pair<std::string, double>> weights;
  for (const std::string& text : texts) {
    const std::size_t at = text.rfind('=');
    double weight = -1;
    if (at != std::string::npos) {
      const char* const end = text.data() + text.size();
      const auto [rest, problem] = std::from_chars(text.data() + at + 1, end, weight);
      if (problem != std::errc() || rest != end) weight = -1;
    }
    if (at == 0 || !(weight >= 0 && weight <= std::numeric_limits<float>::max()))
      throw ConfigError(
          "{}: expected group=weight with a weight of at least 0, for example blood=2, got '{}'", setting,
          text);
    weights.emplace_back(text.substr(0, at), weight);
    const auto same = std::count_if(weights.begin(), weights.end(),
                                    [&](const auto& other) { return other.first == weights.back().first; });
    if (same > 1) throw ConfigError("{}: group '{}' is given twice", setting, weights.back().first);
  }
  return weights;
}

void share_out_epoch(std::vector<SamplingGroup>& groups, double temperature) {
  int64_t num_cells = 0;
  double sum = 0;
  std::vector<double> shares;
  for (SamplingGroup& group : groups) {
    num_cells += group.cells;
    shares.push_back(
        group.cells == 0 ? 0 : group.weight * std::pow(static_cast<double>(group.cells), 1 / temperature));
    sum += shares.back();
  }
  if (!(sum > 0)) throw DataError("data.sampling_weights: every group with training cells has weight 0");
  int64_t left = num_cells;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    shares[i] *= static_cast<double>(num_cells) / sum;
    groups[i].epoch_cells = static_cast<int64_t>(shares[i]);
    left -= groups[i].epoch_cells;
  }
  std::vector<std::size_t> by_remainder(groups.size());
  std::iota(by_remainder.begin(), by_remainder.end(), std::size_t{0});
  std::stable_sort(by_remainder.begin(), by_remainder.end(), [&](std::size_t a, std::size_t b) {
    return shares[a] - std::floor(shares[a]) > shares[b] - std::floor(shares[b]);
  });
  for (std::size_t i = 0; left > 0; i = (i + 1) % groups.size()) {
    SamplingGroup& group = groups[by_remainder[i]];
    if (group.cells == 0 || group.weight == 0) continue;
    ++group.epoch_cells;
    --left;
  }
  for (const SamplingGroup& group : groups) {
    if (group.cells > 0 && group.epoch_cells / group.cells >= std::numeric_limits<uint16_t>::max()) {
      throw DataError(
          "data.sampling: group '{}' has {} cells for {} places of an epoch, more than 65,535 times each; "
          "lower "
          "its weight or data.sampling_temperature",
          group.name, group.cells, group.epoch_cells);
    }
  }
}

std::string sampling_table(const std::vector<SamplingGroup>& groups) {
  std::string text = "group\tcells\tweight\tepoch_cells\ttimes_per_epoch\n";
  for (const SamplingGroup& group : groups) {
    std::string name = group.name;
    std::replace_if(
        name.begin(), name.end(), [](char c) { return c == '\t' || c == '\n' || c == '\r'; }, ' ');
    text += fmt::format(
        "{}\t{}\t{}\t{}\t{:.4f}\n", name, group.cells, group.weight, group.epoch_cells,
        static_cast<double>(group.epoch_cells) / static_cast<double>(std::max<int64_t>(1, group.cells)));
  }
  return text;
}

EpochSample::EpochSample(const Corpus& corpus, std::span<const CellRange> ranges, uint64_t seed,
                         int64_t epoch) {
  struct Left {
    uint64_t cells = 0,
             extra = 0;  // of the group's cells not yet met: how many, and how many stand once more
    uint16_t times = 0;
  };
  std::vector<Left> left;
  for (const SamplingGroup& group : corpus.sampling_groups()) {
    const int64_t cells = std::max<int64_t>(1, group.cells);
    left.push_back({.cells = static_cast<uint64_t>(group.cells),
                    .extra = static_cast<uint64_t>(group.epoch_cells % cells),
                    .times = static_cast<uint16_t>(group.epoch_cells / cells)});
  }
  const RandomStream stream(seed, RandomPurpose::kSample, static_cast<uint64_t>(epoch));
  times_.reserve(static_cast<std::size_t>(corpus.num_training_cells()));
  begin_.push_back(0);
  for (const CellRange& range : ranges) {
    for (int64_t row = range.first_row; row < range.first_row + range.num_rows; ++row) {
      if (corpus.role(range.source, row) != CellRole::kTraining) continue;
      Left& group = left[corpus.sampling_group(range.source, row)];
      // Selection sampling (Knuth 3.4.2 S): of the cells left, `extra` are taken, each set equally likely.
      const bool is_taken = stream.below(group.cells, times_.size()) < group.extra;
      times_.push_back(static_cast<uint16_t>(group.times + (is_taken ? 1 : 0)));
      group.extra -= is_taken ? 1 : 0;
      --group.cells;
    }
    begin_.push_back(times_.size());
  }
}

int64_t EpochSample::num_places(std::size_t range) const {
  const std::span<const uint16_t> all = times(range);
  return std::accumulate(all.begin(), all.end(), int64_t{0});
}

}  // namespace scrna::data
