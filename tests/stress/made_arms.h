// Arms made up for tests: thirty lines of metrics and the settings that claims, tables and figures look at.
#pragma once

#include <string>
#include <utility>

#include <fmt/format.h>

#include "lib/stress/claims.h"

namespace scrna::stress {

struct Made {
  bool is_sigmoid = true;
  double learning_rate = 1e-3;
  int64_t diverged_at = 0;  // 0: it finished
  int seed = 1;
  double clip_norm = 0;
  std::string qk_norm = "none";
  int64_t steps = 100, steps_done = 0;  // 0: all
  double grad_norm = 20, score = 3, last_score = 3;
  double jump = 1;  // of the gradient norm at step 28
  std::string width = "8";
};

inline ArmData make(const Made& made) {
  report::RunData run;
  run.folder = "nowhere";
  run.name = "arm";
  run.config = {{"train.steps", std::to_string(made.steps)},
                {"train.seed", std::to_string(made.seed)},
                {"model.attention", made.is_sigmoid ? "sigmoid" : "softmax"},
                {"model.attention_bias", "negative_log_length"},
                {"model.qk_norm", made.qk_norm},
                {"model.width", made.width},
                {"optim.learning_rate", std::to_string(made.learning_rate)},
                {"optim.clip_norm", std::to_string(made.clip_norm)},
                {"run.dir", std::to_string(made.seed)}};
  run.steps_done = made.diverged_at > 0  ? made.diverged_at
                   : made.steps_done > 0 ? made.steps_done
                                         : made.steps;
  for (int64_t i = 1; i <= 30; ++i) {
    for (const auto& [key, value] :
         {std::pair{"loss", 3.0},
          std::pair{"grad_norm", i == 28 ? made.jump * made.grad_norm : made.grad_norm},
          std::pair{"max_score_per_layer/layer_00", i > 25 ? made.last_score : made.score},
          std::pair{"sigmoid_jacobian_max_per_layer/layer_00", 0.2},
          std::pair{"softmax_jacobian_max_per_layer/layer_00", 0.25},
          std::pair{"sigmoid_jacobian_norm_per_layer/layer_00", 0.3},
          std::pair{"softmax_jacobian_norm_per_layer/layer_00", 0.4}}) {
      run.curves[key].steps.push_back(static_cast<double>(i));
      run.curves[key].values.push_back(value);
    }
  }
  if (made.diverged_at > 0)
    run.diverged.push_back({.step = made.diverged_at, .reason = "r", .policy = "stop", .file = "step.json"});
  const std::string name =
      fmt::format("w{}-{}-lr{}-seed{}{}", made.width, made.is_sigmoid ? "sigmoid" : "softmax",
                  made.learning_rate, made.seed, made.clip_norm > 0 ? "-clipped" : "");
  return arm_data(name, std::move(run));
}

}  // namespace scrna::stress
