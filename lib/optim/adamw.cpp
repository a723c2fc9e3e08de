#include "lib/optim/adamw.h"

#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "lib/ops/adamw_update.h"

namespace scrna::optim {

AdamW::AdamW(ops::ParameterSet& parameters, const OptimConfig& config)
    : parameters_(parameters),
      config_(config),
      mean_(at::zeros_like(parameters.values())),
      squared_mean_(at::zeros_like(parameters.values())),
      num_updates_(at::zeros({}, parameters.values().options().dtype(at::kLong))) {}

at::Tensor AdamW::step(double learning_rate, const at::Tensor& squares, const at::Tensor& loss) {
  const bool has_copy = parameters_.compute_type() != at::kFloat;
  return ops::adamw_update({.values = parameters_.values(),
                            .gradients = parameters_.gradients(),
                            .mean = mean_,
                            .squared_mean = squared_mean_,
                            .compute_copy = has_copy ? parameters_.compute_values() : at::Tensor(),
                            .num_decayed = parameters_.num_decayed(),
                            .num_updates = num_updates_},
                           squares, loss,
                           {.learning_rate = learning_rate,
                            .beta1 = config_.beta1,
                            .beta2 = config_.beta2,
                            .epsilon = config_.epsilon,
                            .weight_decay = config_.weight_decay,
                            .clip_norm = config_.clip_norm});
}

int64_t AdamW::num_updates() const { return num_updates_.item<int64_t>(); }

void AdamW::set_num_updates(int64_t num_updates) { num_updates_.fill_(num_updates); }

}  // namespace scrna::optim
