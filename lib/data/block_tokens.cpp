#include "lib/data/block_tokens.h"

#include <algorithm>

#include "lib/core/error.h"
#include "lib/core/random.h"

namespace scrna::data {
namespace {

constexpr std::size_t kMostBlocks = 64;  // looked through for a cell that can take another's place

// [training cells of the range], or empty: each once.
std::span<const uint16_t> times_of(const EpochSample* sample, std::size_t range) {
  return sample == nullptr ? std::span<const uint16_t>() : sample->times(range);
}

}  // namespace

BlockTokens BlockReader::read(std::span<const CellRange> ranges, std::size_t index,
                              std::span<const uint8_t> is_needed, const EpochSample* sample, uint64_t seed,
                              int64_t epoch) {
  const CellRange& range = ranges[index];
  const std::span<const uint16_t> times = times_of(sample, index);
  BlockTokens result;
  result.spans.assign(is_needed.size(), {0, 0});
  result.cell_ids.assign(is_needed.size(), 0);
  result.mask_keys.assign(is_needed.size(), 0);
  if (std::find_if(is_needed.begin(), is_needed.end(), [](uint8_t needed) { return needed != 0; }) ==
      is_needed.end())
    return result;
  load(range);
  std::vector<std::size_t> unusable;
  std::size_t cell = 0, place = 0;
  for (int64_t row = range.first_row; row < range.first_row + range.num_rows; ++row) {
    if (corpus_.role(range.source, row) != CellRole::kTraining) continue;
    const uint64_t id = corpus_.cell_id(range.source, row);
    const std::size_t first = place, end = first + (times.empty() ? 1 : times[cell]);
    ++cell;
    bool is_wanted = false;
    for (; place < end; ++place) {
      result.cell_ids[place] = id;
      result.mask_keys[place] = place == first ? id : mix64(id ^ mix64(place - first));
      is_wanted = is_wanted || is_needed[place] != 0;
    }
    if (!is_wanted) continue;
    const auto begin = std::ssize(result.tokens);
    const bool is_usable = append(range, row, result.tokens);
    for (std::size_t copy = first; copy < end; ++copy) {
      if (is_needed[copy] == 0) continue;
      if (is_usable)
        result.spans[copy] = {begin, std::ssize(result.tokens)};
      else
        unusable.push_back(copy);
    }
  }
  if (!unusable.empty()) replace(ranges, index, unusable, sample, seed, epoch, result);
  if (const TokenCache* cache = corpus_.cache()) cache->forget(range.source, range.first_row, range.num_rows);
  return result;
}

void BlockReader::load(const CellRange& range) {
  if (corpus_.cache() != nullptr) return;
  const CellSource& source = corpus_.source(range.source);
  source.matrix->read_into(range.first_row, range.num_rows, block_);
  if (!corpus_.is_whole(range.source)) check_values(source, block_);  // else they were checked before
}

// The tokens of a row of the block that was loaded. False, and nothing appended, for a cell that is not
// usable.
bool BlockReader::append(const CellRange& range, int64_t row, std::vector<int32_t>& out) {
  const auto before = out.size();
  if (const TokenCache* cache = corpus_.cache()) {
    cache->append(range.source, row, out);
    if (out.size() == before && !corpus_.is_whole(range.source)) return false;
  } else {
    const auto in_block = static_cast<std::size_t>(row - range.first_row);
    const auto begin = static_cast<std::size_t>(block_.indptr[in_block]);
    const auto count = static_cast<std::size_t>(block_.indptr[in_block + 1]) - begin;
    const int64_t num_genes =
        tokenizer_.append(corpus_.gene_map(range.source), std::span(block_.genes).subspan(begin, count),
                          std::span(block_.values).subspan(begin, count), out);
    if (!corpus_.is_usable(range.source, num_genes)) {
      out.resize(before);
      return false;
    }
  }
  corpus_.check_unchanged(range.source, static_cast<int64_t>(out.size() - before));
  return true;
}

// Cells of the loaded block that stand in the epoch and are usable.
std::vector<int64_t> BlockReader::usable_rows(const CellRange& range, std::span<const uint16_t> times) {
  std::vector<int64_t> rows;
  std::size_t cell = 0;
  for (int64_t row = range.first_row; row < range.first_row + range.num_rows; ++row) {
    if (corpus_.role(range.source, row) != CellRole::kTraining) continue;
    const bool is_drawn = times.empty() || times[cell] > 0;
    ++cell;
    unused_.clear();
    if (is_drawn && append(range, row, unused_)) rows.push_back(row);
  }
  return rows;
}

// Gives each of the places a usable cell: of its own block, or of the first after it that has one.
void BlockReader::replace(std::span<const CellRange> ranges, std::size_t index,
                          std::span<const std::size_t> places, const EpochSample* sample, uint64_t seed,
                          int64_t epoch, BlockTokens& result) {
  const std::size_t num_blocks = std::min(ranges.size(), kMostBlocks);
  for (std::size_t step = 0; step < num_blocks; ++step) {
    const std::size_t other = (index + step) % ranges.size();
    const CellRange& range = ranges[other];
    if (step > 0) load(range);
    const std::vector<int64_t> rows = usable_rows(range, times_of(sample, other));
    if (rows.empty()) continue;
    for (const std::size_t place : places) {
      const RandomStream stream(seed, RandomPurpose::kReplace, static_cast<uint64_t>(epoch),
                                result.mask_keys[place]);
      const int64_t row = rows[stream.below(rows.size(), 0)];
      const auto begin = std::ssize(result.tokens);
      append(range, row, result.tokens);
      result.spans[place] = {begin, std::ssize(result.tokens)};
      result.cell_ids[place] = corpus_.cell_id(range.source, row);
    }
    return;
  }
  const CellRange& range = ranges[index];
  throw DataError(
      "{}: no cell of {} blocks from cell {} on has {} genes of the vocabulary (data.min_genes), though they "
      "store as "
      "many entries; leave them out with data.filter, or read all cells before the first step with "
      "data.scan_cells={}",
      corpus_.source(range.source).name, num_blocks, range.first_row,
      std::max<int64_t>(1, corpus_.config().min_genes),
      corpus_.num_training_cells() + corpus_.num_heldout_cells());
}

}  // namespace scrna::data
