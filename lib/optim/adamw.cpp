#include "lib/optim/adamw.h"

#include <algorithm>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "lib/core/error.h"
#include "lib/ops/adamw_update.h"

namespace scrna::optim {

namespace {

int64_t num_elements_of(const std::vector<ElementRange>& ranges) {
  int64_t sum = 0;
  for (const ElementRange& range : ranges) sum += range.size();
  return sum;
}

}  // namespace

AdamW::AdamW(ops::ParameterSet& parameters, const OptimConfig& config, std::vector<ElementRange> own)
    : parameters_(parameters),
      config_(config),
      own_(std::move(own)),
      mean_(at::zeros({own_.empty() ? parameters.values().numel() : num_elements_of(own_)},
                      parameters.values().options())),
      squared_mean_(at::zeros_like(mean_)),
      num_updates_(at::zeros({}, parameters.values().options().dtype(at::kLong))) {}

at::Tensor AdamW::step(double learning_rate, const at::Tensor& squares, const at::Tensor& loss) {
  const bool writes_copy = is_whole() && parameters_.compute_type() != at::kFloat;
  return ops::adamw_update({.values = parameters_.values(),
                            .gradients = parameters_.gradients(),
                            .mean = mean_,
                            .squared_mean = squared_mean_,
                            .compute_copy = writes_copy ? parameters_.compute_values() : at::Tensor(),
                            .num_decayed = parameters_.num_decayed(),
                            .num_updates = num_updates_,
                            .ranges = own_},
                           squares, loss,
                           {.learning_rate = learning_rate,
                            .beta1 = config_.beta1,
                            .beta2 = config_.beta2,
                            .epsilon = config_.epsilon,
                            .weight_decay = config_.weight_decay,
                            .clip_norm = config_.clip_norm});
}

void AdamW::set_moments(int64_t begin, const at::Tensor& mean, const at::Tensor& squared_mean) {
  SCRNA_CHECK(mean.dim() == 1 && mean.sizes() == squared_mean.sizes(), "moments of {} and {} elements", mean.numel(),
              squared_mean.numel());
  const at::NoGradGuard no_grad;
  const ElementRange given{begin, begin + mean.numel()};
  int64_t at = 0;  // of the own range among the moments
  for (const ElementRange& range : is_whole() ? std::vector<ElementRange>{{0, mean_.numel()}} : own_) {
    const ElementRange both{std::max(range.begin, given.begin), std::min(range.end, given.end)};
    if (both.size() > 0) {
      const int64_t to = at + both.begin - range.begin, from = both.begin - given.begin;
      mean_.narrow(0, to, both.size()).copy_(mean.narrow(0, from, both.size()));
      squared_mean_.narrow(0, to, both.size()).copy_(squared_mean.narrow(0, from, both.size()));
    }
    at += range.size();
  }
}

int64_t AdamW::num_updates() const { return num_updates_.item<int64_t>(); }

void AdamW::set_num_updates(int64_t num_updates) { num_updates_.fill_(num_updates); }

}  // namespace scrna::optim
