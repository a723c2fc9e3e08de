#include "lib/optim/adamw.h"

#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <ATen/core/grad_mode.h>

#include <utility>

namespace scrna::optim {

AdamW::AdamW(at::Tensor values, at::Tensor gradients, int64_t num_decayed, const OptimConfig& config)
    : values_(std::move(values)),
      gradients_(std::move(gradients)),
      mean_(at::zeros_like(values_)),
      squared_mean_(at::zeros_like(values_)),
      update_counter_(at::zeros({}, values_.options())),
      num_decayed_(num_decayed),
      config_(config) {}

void AdamW::set_num_updates(int64_t num_updates) {
  num_updates_ = num_updates;
  update_counter_.fill_(num_updates);
}

void AdamW::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  set_num_updates(num_updates_ + 1);
  const int64_t total = values_.numel();
  const auto update = [&](int64_t first, int64_t count, double weight_decay) {
    if (count == 0) return;
    at::_fused_adamw_({values_.narrow(0, first, count)}, {gradients_.narrow(0, first, count)}, {mean_.narrow(0, first, count)},
                      {squared_mean_.narrow(0, first, count)}, /*max_exp_avg_sqs=*/{}, {update_counter_}, learning_rate,
                      config_.beta1, config_.beta2, weight_decay, config_.epsilon, /*amsgrad=*/false, /*maximize=*/false);
  };
  update(0, num_decayed_, config_.weight_decay);
  update(num_decayed_, total - num_decayed_, 0.0);
}

void clip_by_global_norm(const at::Tensor& gradients, double norm, double clip_norm) {
  if (clip_norm <= 0 || norm <= clip_norm) return;
  const at::NoGradGuard no_grad;
  gradients.mul_(clip_norm / norm);
}

}  // namespace scrna::optim
