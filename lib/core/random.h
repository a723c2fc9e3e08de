// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC 2011). A value is a pure function of (seed, stream, counter), so masking, dropout, shuffling and synthetic
// data do not depend on the number of threads, ranks or workers, and nothing needs saving to resume. The rejected
// alternative, a generator object with state, ties results to the order in which cells are processed.
#pragma once

#include <array>
#include <cstdint>

namespace scrna {

/// What a stream of random numbers is for. Streams of different purposes are independent for one seed.
enum class RandomPurpose : uint32_t { kShuffle = 1, kMask = 2, kDropout = 3, kInit = 4, kSplit = 5, kSynthesize = 6, kProbe = 7, kReplace = 8, kSample = 9,
                                      kEvaluate = 16 };

/// 64 well-mixed bits of `value` (the finaliser of SplitMix64).
constexpr uint64_t mix64(uint64_t value) noexcept {
  value += 0x9e3779b97f4a7c15ULL;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ULL;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebULL;
  return value ^ (value >> 31);
}

/// Philox4x32-10: four independent 32-bit words for one (key, counter).
constexpr std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 2> key, std::array<uint32_t, 4> counter) noexcept {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53U} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57U} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key = {key[0] + 0x9E3779B9U, key[1] + 0xBB67AE85U};
  }
  return counter;
}

/// One stream: all draws for (seed, purpose, a, b), for example (seed, kMask, step, cell). Cheap to make and to copy.
class RandomStream {
 public:
  constexpr RandomStream(uint64_t seed, RandomPurpose purpose, uint64_t a = 0, uint64_t b = 0) noexcept {
    const uint64_t key = mix64(mix64(mix64(mix64(seed) ^ static_cast<uint64_t>(purpose)) ^ a) ^ b);
    key_ = {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)};
    const uint64_t tweak = mix64(key ^ 0x5ca1ab1eULL);
    tweak_ = {static_cast<uint32_t>(tweak), static_cast<uint32_t>(tweak >> 32)};
  }
  /// The four 32-bit words at `index`: random access, no state.
  [[nodiscard]] constexpr std::array<uint32_t, 4> words(uint64_t index) const noexcept {
    return philox4x32(key_, {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), tweak_[0], tweak_[1]});
  }
  /// 64 random bits at `index`.
  [[nodiscard]] constexpr uint64_t bits(uint64_t index) const noexcept {
    const auto w = words(index);
    return (uint64_t{w[1]} << 32) | w[0];
  }
  /// Uniform in [0, 1), 53 bits, at `index`.
  [[nodiscard]] constexpr double uniform(uint64_t index) const noexcept {
    return static_cast<double>(bits(index) >> 11) * 0x1.0p-53;
  }
  /// Uniform integer in [0, bound), at `index`; the bias is below bound / 2^64.
  [[nodiscard]] constexpr uint64_t below(uint64_t bound, uint64_t index) const noexcept {
    __extension__ using Wide = unsigned __int128;
    return static_cast<uint64_t>((static_cast<Wide>(bits(index)) * bound) >> 64);
  }

 private:
  std::array<uint32_t, 2> key_{};
  std::array<uint32_t, 2> tweak_{};
};

}  // namespace scrna
