#include "lib/data/rank_sort.h"

#include <algorithm>
#include <bit>

#include "lib/core/error.h"

namespace scrna::data {
namespace {

constexpr std::size_t kMinBuckets = 256,
                      kMaxBuckets = 8192;  // 32 kB of places: they stay in the nearest cache
constexpr uint32_t kFullBucket = 40;       // pairs; above, insertion is slower than std::sort

uint64_t pair_of(uint32_t key, int32_t token) { return uint64_t{key} << 32 | static_cast<uint32_t>(token); }

// Pairs are nearly in order: each is at most a bucket's length from its place.
void insertion_sort(uint64_t* pairs, std::size_t count) {
  for (std::size_t i = 1; i < count; ++i) {
    const uint64_t pair = pairs[i];
    std::size_t to = i;
    for (; to > 0 && pairs[to - 1] > pair; --to) pairs[to] = pairs[to - 1];
    pairs[to] = pair;
  }
}

}  // namespace

void RankSorter::smallest_first(std::span<const uint32_t> keys, std::span<const int32_t> tokens,
                                std::size_t num_wanted, int32_t* out) {
  SCRNA_CHECK(keys.size() == tokens.size(), "{} keys, {} tokens", keys.size(), tokens.size());
  const std::size_t count = keys.size();
  num_wanted = std::min(num_wanted, count);
  if (num_wanted == 0) return;
  uint32_t least = keys[0], greatest = keys[0];
  for (const uint32_t key : keys) {
    least = std::min(least, key);
    greatest = std::max(greatest, key);
  }
  const std::size_t max_buckets = std::clamp(2 * std::bit_ceil(count), kMinBuckets, kMaxBuckets);
  const int shift = std::max(0, static_cast<int>(std::bit_width(greatest - least)) -
                                    static_cast<int>(std::bit_width(max_buckets) - 1));
  const std::size_t num_buckets = ((greatest - least) >> shift) + 1;
  places_.assign(num_buckets + 1, 0);
  for (const uint32_t key : keys) ++places_[(key - least) >> shift];
  // places_[b]: first place of bucket b, up to the bucket with the last wanted pair.
  std::size_t end_bucket = 0;
  uint32_t num_placed = 0, fullest = 0;
  while (num_placed < num_wanted) {
    const uint32_t size = places_[end_bucket];
    places_[end_bucket++] = num_placed;
    num_placed += size;
    fullest = std::max(fullest, size);
  }
  if (pairs_.size() < num_placed) pairs_.resize(num_placed);
  if (num_placed == count) {
    for (std::size_t i = 0; i < count; ++i)
      pairs_[places_[(keys[i] - least) >> shift]++] = pair_of(keys[i], tokens[i]);
  } else {
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t bucket = (keys[i] - least) >> shift;
      if (bucket < end_bucket) pairs_[places_[bucket]++] = pair_of(keys[i], tokens[i]);
    }
  }
  if (fullest > kFullBucket) {  // places_[b] is now the end of bucket b
    for (std::size_t bucket = 0, begin = 0; bucket < end_bucket; begin = places_[bucket++]) {
      if (places_[bucket] - begin > kFullBucket)
        std::sort(pairs_.begin() + static_cast<std::ptrdiff_t>(begin), pairs_.begin() + places_[bucket]);
    }
  }
  insertion_sort(pairs_.data(), num_placed);
  for (std::size_t i = 0; i < num_wanted; ++i)
    out[i] = static_cast<int32_t>(static_cast<uint32_t>(pairs_[i]));
}

}  // namespace scrna::data
