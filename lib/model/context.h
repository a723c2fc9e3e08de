// What a forward pass needs besides weights and tokens. One struct passed down by reference, so that adding a
// setting does not change every signature.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "lib/ops/attention_statistics.h"

namespace scrna::model {

/// A packed micro-batch on the device (lib/core/micro_batch.h says what the fields mean).
struct TokenTensors {
  at::Tensor tokens;            // [T] int64
  at::Tensor ranks;             // [T] int64
  at::Tensor cu_seqlens;        // [B+1] int32
  at::Tensor cu_seqlens_host;   // the same numbers in host memory
  at::Tensor cell_ids;          // [B] int64 (the bits of the uint64 id)
  at::Tensor masked_positions;  // [M] int64
  at::Tensor masked_targets;    // [M] int64
  int64_t max_cell_tokens = 0;
};

/// What a forward pass keeps for the backward pass; the rest is computed again there, to the same bits.
enum class Recompute {
  kNone,         // everything: 20 D + 4 F bytes per token and layer in bf16
  kFeedForward,  // of the feed-forward layers their input alone: 20 D bytes
  kBlock         // of every block its input alone: 6 D bytes
};
constexpr auto enum_names(Recompute) {
  return std::array{std::pair{std::string_view("none"), Recompute::kNone},
                    std::pair{std::string_view("feed_forward"), Recompute::kFeedForward},
                    std::pair{std::string_view("block"), Recompute::kBlock}};
}

/// Positions in ForwardContext::layer_statistics: of the residual stream and its branches first, then those of
/// ops::AttentionStatistic in their order, then the exact largest score.
enum class LayerStatistic : int64_t {
  kResidualRms,     // root mean square of the stream that enters the block
  kAttentionRms,    // of what attention adds to it, before dropout
  kFeedForwardRms,  // of what the feed-forward layers add
  kFirstOfAttention,
  kExactMaxScore = kFirstOfAttention + static_cast<int64_t>(ops::AttentionStatistic::kCount),  // NaN if not measured
  kCount
};
constexpr LayerStatistic of_attention(ops::AttentionStatistic statistic) {
  return static_cast<LayerStatistic>(static_cast<int64_t>(LayerStatistic::kFirstOfAttention) + static_cast<int64_t>(statistic));
}

struct ForwardContext {
  uint64_t seed = 0;        // root seed of the run: keys dropout and the score probe
  int64_t step = 0;         // optimizer step (0-based)
  int64_t micro_batch = 0;  // its position in the global batch
  bool training = false;    // dropout on
  bool is_recorded = false;  // set by the encoder: a backward pass follows, also through code that runs without autograd
  Recompute recompute = Recompute::kNone;
  int64_t probe_queries = 0;           // sampled queries of the attention-score probe; 0: no probe
  std::vector<at::Tensor> max_scores;  // filled by the probe: one 0-d fp32 tensor per layer
  int64_t statistics_queries = 0;      // sampled queries of layer_statistics; 0: not measured
  bool exact_scores = false;           // with statistics_queries: kExactMaxScore too, which costs a pass over all scores
  std::vector<at::Tensor> layer_statistics;  // one [LayerStatistic::kCount] fp32 tensor per layer, on the device
};

}  // namespace scrna::model
