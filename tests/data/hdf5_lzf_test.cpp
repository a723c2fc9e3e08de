#include "lib/data/hdf5_lzf.h"

#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace scrna::data::h5 {
namespace {

// The text, or "damaged".
std::string decompress(const std::vector<uint8_t>& input, std::size_t max_bytes = 1000) {
  std::vector<uint8_t> output;
  if (!decompress_lzf(input, max_bytes, output)) return "damaged";
  return {output.begin(), output.end()};
}

TEST(Lzf, LiteralsAndCopiesAreDecoded) {
  EXPECT_EQ(decompress({}), "");
  EXPECT_EQ(decompress({2, 'a', 'b', 'c'}), "abc");
  EXPECT_EQ(decompress({2, 'a', 'b', 'c', 1 << 5, 2}), "abcabc");       // 3 bytes from 3 back
  EXPECT_EQ(decompress({0, 'x', 7 << 5, 0, 0}), "xxxxxxxxxx");          // a run: 9 bytes from 1 back
  EXPECT_EQ(decompress({0, 'x', 7 << 5, 5, 0}), std::string(15, 'x'));  // 9 + 5
}

TEST(Lzf, WhatPointsOutsideIsDamaged) {
  EXPECT_EQ(decompress({5, 'a'}), "damaged");             // more literals than there are
  EXPECT_EQ(decompress({0, 'a', 1 << 5, 1}), "damaged");  // from before the beginning
  EXPECT_EQ(decompress({0, 'a', 1 << 5}), "damaged");     // ends inside a copy
  EXPECT_EQ(decompress({0, 'a', 7 << 5}), "damaged");
  EXPECT_EQ(decompress({0, 'a', 7 << 5, 3}), "damaged");
  EXPECT_EQ(decompress({2, 'a', 'b', 'c'}, 2), "damaged");  // longer than the chunk
  EXPECT_EQ(decompress({0, 'x', 7 << 5, 255, 0}, 100), "damaged");
}

TEST(Lzf, RandomBytesNeverReachOutside) {  // for the sanitizers to watch
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::vector<uint8_t> input(random() % 64), output;
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    decompress_lzf(input, 512, output);
    ASSERT_LE(output.size(), 512U);
  }
}

}  // namespace
}  // namespace scrna::data::h5
