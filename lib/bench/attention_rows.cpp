#include "lib/bench/attention_rows.h"

#include <algorithm>
#include <cmath>
#include <random>

#include <fmt/format.h>

#include "lib/bench/cell_lengths.h"

namespace scrna::bench {
namespace {

constexpr int64_t kGpuColumns = 2048;  // hidden size of the paper's benchmark
constexpr int64_t kCpuColumns = 768;   // of its 160M model
constexpr int64_t kShortCell = 500;
constexpr uint64_t kSeed = 1;

/// As many cells as make `tokens`; the last one is cut.
std::vector<int32_t> lengths_of_tokens(int64_t tokens) {
  std::mt19937_64 generator(kSeed);
  std::vector<int32_t> lengths;
  for (int64_t left = tokens; left > 0; left -= lengths.back())
    lengths.push_back(static_cast<int32_t>(std::min<int64_t>(left, cellxgene_length(generator))));
  return lengths;
}

/// 512, 1,024, ... up to the tokens of a row; the tokens themselves where they are fewer.
std::vector<int64_t> equal_lengths(int64_t tokens) {
  std::vector<int64_t> lengths;
  for (int64_t length = 512; length <= std::min<int64_t>(tokens, 16384); length *= 2)
    lengths.push_back(length);
  return lengths.empty() ? std::vector{tokens} : lengths;
}

AttentionRow equal_row(int64_t columns, int64_t width, int64_t length, int64_t tokens) {
  return {.name = fmt::format("d{} T={}", width, length),
          .lengths = std::vector<int32_t>(static_cast<size_t>(tokens / length), static_cast<int32_t>(length)),
          .num_heads = columns / width,
          .head_width = width};
}

/// At least 1 token in every cell.
AttentionRow padded_row(AttentionRow row, int percent) {
  row.padded_length = row.lengths.front();
  row.name += fmt::format(" pad {}%", percent);
  std::mt19937_64 generator(static_cast<uint64_t>(row.padded_length * 100 + percent));
  const double fewest = static_cast<double>(row.padded_length) * (100 - percent) / 100;
  for (int32_t& length : row.lengths)
    length = static_cast<int32_t>(
        std::round(fewest + (static_cast<double>(row.padded_length) - fewest) * uniform(generator)));
  return row;
}

AttentionRow ragged_row(const std::string& what, std::vector<int32_t> lengths, int64_t heads, int64_t width) {
  return {.name = fmt::format("{} {}x{}", what, heads, width),
          .lengths = std::move(lengths),
          .num_heads = heads,
          .head_width = width};
}

std::vector<int32_t> short_cell(int64_t tokens) {
  return {static_cast<int32_t>(std::min(tokens, kShortCell))};
}

}  // namespace

int64_t AttentionRow::valid_tokens() const {
  int64_t sum = 0;
  for (const int32_t length : lengths) sum += length;
  return sum;
}

bool AttentionRow::has_equal_lengths() const {
  return std::all_of(lengths.begin(), lengths.end(), [&](int32_t x) { return x == lengths.front(); });
}

double AttentionRow::forward_flop() const {
  double squares = 0;
  for (const int32_t length : lengths) squares += static_cast<double>(length) * length;
  return 4.0 * static_cast<double>(num_heads * head_width) * squares;
}

std::vector<AttentionRow> gpu_attention_rows(int64_t tokens) {
  std::vector<AttentionRow> rows;
  for (const int64_t width : {64, 128})
    for (const int64_t length : equal_lengths(tokens))
      rows.push_back(equal_row(kGpuColumns, width, length, tokens));
  for (const int64_t width : {64, 128})
    for (const int percent : {25, 50})
      for (const int64_t length : equal_lengths(tokens))
        rows.push_back(padded_row(equal_row(kGpuColumns, width, length, tokens), percent));
  rows.push_back(ragged_row("ragged 32 cells", cellxgene_lengths(32, kSeed), 12, 64));
  rows.push_back(ragged_row("ragged 128 cells", cellxgene_lengths(128, kSeed), 12, 64));
  rows.push_back(ragged_row("ragged 32 cells", cellxgene_lengths(32, kSeed), 16, 128));
  rows.push_back(ragged_row("ragged 128 cells", cellxgene_lengths(128, kSeed), 16, 128));
  const auto one = short_cell(tokens);
  rows.push_back(ragged_row(fmt::format("one cell of {}", one.front()), one, 12, 64));
  return rows;
}

std::vector<AttentionRow> cpu_attention_rows(int64_t tokens) {
  std::vector<AttentionRow> rows;
  for (const int64_t width : {64, 128})
    for (const int64_t length : equal_lengths(tokens))
      if (width == 64 || length == equal_lengths(tokens).back())
        rows.push_back(equal_row(kCpuColumns, width, length, tokens));
  rows.push_back(
      ragged_row(fmt::format("ragged {} tokens", 2 * tokens), lengths_of_tokens(2 * tokens), 12, 64));
  const auto one = short_cell(tokens);
  rows.push_back(ragged_row(fmt::format("one cell of {}", one.front()), one, 12, 64));
  return rows;
}

}  // namespace scrna::bench
