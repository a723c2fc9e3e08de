#include "lib/data/masking.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace scrna::data {

int64_t num_masked_tokens(int64_t num_gene_tokens, double fraction) {
  const auto wanted = static_cast<int64_t>(std::llround(fraction * static_cast<double>(num_gene_tokens)));
  return std::clamp<int64_t>(wanted, std::min<int64_t>(1, num_gene_tokens), num_gene_tokens);
}

void choose_masked(const RandomStream& stream, int64_t num_gene_tokens, double fraction,
                   std::vector<int32_t>& out) {
  int64_t needed = num_masked_tokens(num_gene_tokens, fraction);
  std::size_t place = out.size();
  out.resize(place + static_cast<std::size_t>(needed));
  std::array<uint32_t, 4> words{};
  for (int64_t i = 0; needed > 0; ++i) {
    if (i % 4 == 0) words = stream.words(static_cast<uint64_t>(i) / 4);
    const auto left = static_cast<uint64_t>(num_gene_tokens - i);
    // Uniform in [0, left): the token is taken with probability needed / left, and surely when all left are
    // needed.
    const uint64_t draw = (uint64_t{words[static_cast<std::size_t>(i % 4)]} * left) >> 32;
    const bool is_taken = draw < static_cast<uint64_t>(needed);
    out[place] = static_cast<int32_t>(i);  // without a branch nobody can predict; kept when it is taken
    place += is_taken ? 1 : 0;
    needed -= is_taken ? 1 : 0;
  }
}

}  // namespace scrna::data
