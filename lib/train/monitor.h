// What is watched beside loss and gradient norms, every monitor.every_steps steps: norms of the weights and of their last
// update by layer, activations and attention by block (lib/ops/attention_statistics.h). All of it is made on the device
// in the step's own stream and travels to the host with the step's other numbers, so no step waits for it; measured on the
// step's first micro-batch, and, with several processes, of the first one.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/config/bound.h"
#include "lib/model/context.h"

namespace scrna::train {

struct MonitorSection {
  int64_t every_steps = 10;
  int64_t queries = 16;
  bool exact_scores = false;
  bool tensorboard = true;
  double explosion_factor = 1000;
  int64_t explosion_window_steps = 100;
  int64_t loss_above_start_steps = 200;

  template <class V>
  void visit(V&& v) {
    v("every_steps", every_steps,
      "optimizer steps between lines with weights, updates, activations and attention (and the first); 0: never. Loss, "
      "gradient norms and the score probe are of every step",
      config::at_least(0));
    v("queries", queries, "query rows sampled for the attention statistics", config::between(1, 4096));
    v("exact_scores", exact_scores, "measure the true largest score on those steps too, over all pairs of tokens");
    v("tensorboard", tensorboard, "also write TensorBoard events into the run's tensorboard/");
    v("explosion_factor", explosion_factor,
      "a step diverges when its gradient norm exceeds this many times the median of the last explosion_window_steps applied "
      "steps (from a fifth of them on); it is not applied. 0: only when it is not finite",
      config::at_least(0));
    v("explosion_window_steps", explosion_window_steps, "steps of that median", config::between(5, 10000));
    v("loss_above_start_steps", loss_above_start_steps,
      "training has diverged when the loss was above the mean of the first ten for so many steps in a row; 0: not looked at",
      config::at_least(0));
  }
};

/// Of one step, by layer of ParameterSet::layer_names() or by block.
struct MonitorReading {
  std::vector<double> weight_norm;   // L2, after the step
  std::vector<double> update_ratio;  // L2 norm of the step's change of the weights over that of the weights before it
  std::vector<std::array<double, static_cast<std::size_t>(model::LayerStatistic::kCount)>> blocks;
};

/// Key in metrics.jsonl of each LayerStatistic.
constexpr std::array<std::pair<model::LayerStatistic, std::string_view>, 11> kLayerStatisticKeys = {{
    {model::LayerStatistic::kResidualRms, "residual_rms_per_layer"},
    {model::LayerStatistic::kAttentionRms, "attention_rms_per_layer"},
    {model::LayerStatistic::kFeedForwardRms, "feed_forward_rms_per_layer"},
    {model::of_attention(ops::AttentionStatistic::kRowSumMean), "attention_row_sum_per_layer"},
    {model::of_attention(ops::AttentionStatistic::kRowSumMax), "attention_row_sum_max_per_layer"},
    {model::of_attention(ops::AttentionStatistic::kEntropyMean), "attention_entropy_per_layer"},
    {model::of_attention(ops::AttentionStatistic::kSigmoidJacobianNorm), "sigmoid_jacobian_norm_per_layer"},
    {model::of_attention(ops::AttentionStatistic::kSigmoidJacobianMax), "sigmoid_jacobian_max_per_layer"},
    {model::of_attention(ops::AttentionStatistic::kSoftmaxJacobianNorm), "softmax_jacobian_norm_per_layer"},
    {model::of_attention(ops::AttentionStatistic::kSoftmaxJacobianMax), "softmax_jacobian_max_per_layer"},
    {model::LayerStatistic::kExactMaxScore, "exact_max_score_per_layer"},
}};

/// Whether optimizer step `step` (0-based) is one that is monitored: the first and every every_steps-th.
constexpr bool is_monitored(const MonitorSection& monitor, int64_t step) {
  return monitor.every_steps > 0 && (step == 0 || (step + 1) % monitor.every_steps == 0);
}

}  // namespace scrna::train
