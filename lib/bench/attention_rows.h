// The problems of `bench attention`, one per row of its table:
//   cells of one length T, all tokens of one micro-batch together, as in FlashAttention's papers;
//   the same padded to T, lengths uniform in [(1 - p) T, T] as in arXiv 2604.27124 (p = 25 and 50 %), so that
//   p / 2 of the tokens are padding on average; ours computes the padded layout, its peers the packed one;
//   ragged packs with lengths as in CELLxGENE: log2-normal(10.75, 1.25) clipped to 200 ... 8,192;
//   one short cell.
// Lengths are drawn with fixed seeds: the same rows everywhere.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace scrna::bench {

struct AttentionRow {
  std::string name;
  std::vector<int32_t> lengths;  // of the cells
  int64_t padded_length = 0;     // S, or 0: packed
  int64_t num_heads = 0;
  int64_t head_width = 0;

  [[nodiscard]] int64_t valid_tokens() const;
  [[nodiscard]] bool has_equal_lengths() const;
  /// 4 H K sum(L^2): two products, valid tokens only. The backward pass counts 2.5 times that.
  [[nodiscard]] double forward_flop() const;
};

/// On a GPU: head widths 64 and 128 of 2,048 columns, `tokens` per row. 35 rows for 16,384 tokens or more.
std::vector<AttentionRow> gpu_attention_rows(int64_t tokens);
/// On a CPU: 768 columns, fewer rows.
std::vector<AttentionRow> cpu_attention_rows(int64_t tokens);

}  // namespace scrna::bench
