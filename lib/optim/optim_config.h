// The `optim` section of a configuration: AdamW, the learning-rate schedule and clipping. Defaults are those of
// arXiv 2604.27124, Table 2.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "lib/config/bound.h"

namespace scrna::optim {

enum class Schedule { kConstant, kCosine };
constexpr auto enum_names(Schedule) {
  return std::array{std::pair{std::string_view("constant"), Schedule::kConstant},
                    std::pair{std::string_view("cosine"), Schedule::kCosine}};
}

struct OptimConfig {
  double learning_rate = 1e-4;
  Schedule schedule = Schedule::kConstant;
  int64_t warmup_steps = 100;
  double final_learning_rate_fraction = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 0.0;

  template <class V>
  void visit(V&& v) {
    v("learning_rate", learning_rate, "peak learning rate, reached after the warm-up", config::above(0));
    v("schedule", schedule, "after the warm-up: constant, or cosine down to final_learning_rate_fraction at train.steps");
    v("warmup_steps", warmup_steps, "optimizer steps of linear warm-up from 0", config::at_least(0));
    v("final_learning_rate_fraction", final_learning_rate_fraction, "floor of the cosine schedule, as a part of learning_rate",
      config::between(0, 1));
    v("beta1", beta1, "decay of AdamW's mean of gradients", config::from_to_below(0, 1));
    v("beta2", beta2, "decay of AdamW's mean of squared gradients", config::from_to_below(0, 1));
    v("epsilon", epsilon, "added to the root of AdamW's second moment", config::above(0));
    v("weight_decay", weight_decay, "decoupled weight decay of matrices; biases and LayerNorm are exempt", config::at_least(0));
    v("clip_norm", clip_norm, "scale gradients down to this global L2 norm; 0: never clip", config::at_least(0));
  }
};

}  // namespace scrna::optim
