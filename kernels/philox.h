// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) for host and device.
// The same function as lib/core/random.h, which this folder may not include; a test holds the two equal word
// for word.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define SCRNA_HOST_DEVICE __host__ __device__
#else
#define SCRNA_HOST_DEVICE
#endif

namespace scrna::kernels {

struct PhiloxWords {
  uint32_t word[4];
};

/// Four independent 32-bit words for one (key, counter).
SCRNA_HOST_DEVICE constexpr PhiloxWords philox4x32(uint64_t key, PhiloxWords counter) {
  auto key0 = static_cast<uint32_t>(key);
  auto key1 = static_cast<uint32_t>(key >> 32);
  uint32_t c0 = counter.word[0];
  uint32_t c1 = counter.word[1];
  uint32_t c2 = counter.word[2];
  uint32_t c3 = counter.word[3];
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53U} * c0;
    const uint64_t product1 = uint64_t{0xCD9E8D57U} * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<uint32_t>(product0);
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return {{c0, c1, c2, c3}};
}

}  // namespace scrna::kernels
