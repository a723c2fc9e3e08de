#include "kernels/philox.h"

#include <gtest/gtest.h>

#include "lib/core/random.h"

namespace scrna::kernels {
namespace {

// kernels/ may not include lib/, so Philox exists twice; this holds the two together.
TEST(Philox, EqualsTheGeneratorOfTheCoreLibraryWordForWord) {
  for (uint64_t i = 0; i < 10000; ++i) {
    const uint64_t key = mix64(i);
    const uint64_t a = mix64(key);
    const uint64_t b = mix64(a);
    const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
    const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
    const PhiloxWords ours = philox4x32(key, {{low(a), high(a), low(b), high(b)}});
    const auto core = scrna::philox4x32({low(key), high(key)}, {low(a), high(a), low(b), high(b)});
    for (size_t w = 0; w < 4; ++w) ASSERT_EQ(ours.word[w], core[w]) << i;
  }
}

}  // namespace
}  // namespace scrna::kernels
