// The sort of the tokenizer against std::sort over pairs, for keys of every shape.
#include "lib/data/rank_sort.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace scrna::data {
namespace {

using Random = std::mt19937_64;

std::vector<int32_t> expected(const std::vector<uint32_t>& keys, const std::vector<int32_t>& tokens,
                              std::size_t num_wanted) {
  std::vector<std::pair<uint32_t, int32_t>> pairs;
  for (std::size_t i = 0; i < keys.size(); ++i) pairs.emplace_back(keys[i], tokens[i]);
  std::sort(pairs.begin(), pairs.end());
  std::vector<int32_t> sorted;
  for (std::size_t i = 0; i < std::min(num_wanted, pairs.size()); ++i) sorted.push_back(pairs[i].second);
  return sorted;
}

uint32_t bits_of(float score) { return ~std::bit_cast<uint32_t>(score); }

TEST(RankSorter, AgreesWithStdSortForKeysOfEveryShape) {
  const std::vector<std::pair<std::string, std::function<uint32_t(Random&)>>> shapes = {
      {"any bits", [](Random& random) { return static_cast<uint32_t>(random()); }},
      {"all equal", [](Random&) { return 17U; }},
      {"two values far apart", [](Random& random) { return random() % 2 == 0 ? 0U : 0xffffffffU; }},
      {"neighbours", [](Random& random) { return 0x80000000U + static_cast<uint32_t>(random() % 3); }},
      {"one size and a few outliers",
       [](Random& random) {
         return random() % 50 == 0 ? static_cast<uint32_t>(random())
                                   : 0x40000000U + static_cast<uint32_t>(random() % 1000);
       }},
      {"scores: few counts over few medians",
       [](Random& random) {
         return bits_of(static_cast<float>(1 + random() % 6) /
                        (0.5F + 0.01F * static_cast<float>(random() % 300)));
       }},
      {"scores: many counts over many medians",
       [](Random& random) {
         return bits_of(static_cast<float>(1 + random() % 5000) /
                        std::max(1e-3F, static_cast<float>(random() % 100000) / 1e4F));
       }},
      {"infinities and the smallest floats",
       [](Random& random) {
         constexpr float kOdd[] = {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::max(),
                                   std::numeric_limits<float>::min(),
                                   std::numeric_limits<float>::denorm_min(), 0.0F};
         return bits_of(kOdd[random() % std::size(kOdd)]);
       }},
  };
  Random random(5);
  RankSorter sorter;  // one for all, as the tokenizer has it: what earlier calls leave must not matter
  for (const auto& [name, key_of] : shapes) {
    for (const std::size_t count : {0, 1, 2, 3, 10, 41, 255, 256, 257, 700, 2000, 9000, 20000, 5}) {
      std::vector<uint32_t> keys;
      std::vector<int32_t> tokens;
      for (std::size_t i = 0; i < count; ++i) {
        keys.push_back(key_of(random));
        tokens.push_back(static_cast<int32_t>(i) * 3 % (1 << 22));
      }
      if (random() % 2 == 0) std::shuffle(tokens.begin(), tokens.end(), random);
      for (const std::size_t num_wanted :
           {std::size_t{0}, std::size_t{1}, count / 3, count - count / 50, count, count + 1}) {
        std::vector<int32_t> out(std::min(num_wanted, count) + 1, -1);
        sorter.smallest_first(keys, tokens, num_wanted, out.data());
        EXPECT_EQ(out.back(), -1) << "wrote beyond the end";
        out.pop_back();
        ASSERT_EQ(out, expected(keys, tokens, num_wanted)) << name << ", " << num_wanted << " of " << count;
      }
    }
  }
}

}  // namespace
}  // namespace scrna::data
