#include "lib/data/packing.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "lib/core/error.h"
#include "lib/data/masking.h"
#include "lib/data/vocabulary.h"

namespace scrna::data {

bool Packer::is_full_for(int64_t num_tokens) const {
  return !is_empty() && pack_.num_tokens() + num_tokens > tokens_per_micro_batch_;
}

void Packer::add(std::span<const int32_t> tokens, uint64_t cell_id, const RandomStream& stream) {
  SCRNA_CHECK(!tokens.empty(), "cell {} has no token", cell_id);
  if (is_empty()) pack_.cu_seqlens.assign(1, 0);
  const std::size_t begin = pack_.tokens.size();
  pack_.tokens.insert(pack_.tokens.end(), tokens.begin(), tokens.end());
  pack_.ranks.resize(pack_.tokens.size());
  std::iota(pack_.ranks.begin() + static_cast<std::ptrdiff_t>(begin), pack_.ranks.end(), 0);
  const std::size_t num_special = tokens[0] == Vocabulary::kCls ? 1 : 0;
  masked_.clear();
  choose_masked(stream, static_cast<int64_t>(tokens.size() - num_special), mask_fraction_, masked_);
  for (const int32_t gene : masked_) {
    const std::size_t position = begin + num_special + static_cast<std::size_t>(gene);
    pack_.masked_positions.push_back(static_cast<int32_t>(position));
    pack_.masked_targets.push_back(std::exchange(pack_.tokens[position], Vocabulary::kMask));
  }
  pack_.cell_ids.push_back(cell_id);
  pack_.cu_seqlens.push_back(static_cast<int32_t>(pack_.tokens.size()));
  pack_.max_cell_tokens = std::max(pack_.max_cell_tokens, static_cast<int32_t>(tokens.size()));
}

PackedMicroBatch Packer::take() { return std::exchange(pack_, {}); }

}  // namespace scrna::data
