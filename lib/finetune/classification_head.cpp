#include "lib/finetune/classification_head.h"

#include <utility>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include "lib/core/error.h"
#include "lib/model/initialisation.h"

namespace scrna::finetune {
namespace {

constexpr double kInitialDeviation = 0.02;
constexpr double kLeastDeviation = 0.01;  // part of the mean deviation

}  // namespace

at::Tensor HeadWeights::probabilities(const at::Tensor& rows_BD) const {
  const at::NoGradGuard no_grad;
  SCRNA_CHECK(rows_BD.dim() == 2 && rows_BD.size(1) == mean.size(0) && rows_BD.is_cpu(),
              "rows of {} columns for a head of {}", rows_BD.size(-1), mean.size(0));
  const at::Tensor z = rows_BD.to(at::kDouble).sub_(mean).div_(deviation);
  const at::Tensor logits = at::matmul(z, weight.to(at::kDouble).t()).add_(bias);
  return at::softmax(logits, -1).to(at::kFloat);
}

std::pair<at::Tensor, at::Tensor> standardisation_of(const at::Tensor& rows_BD) {
  const at::NoGradGuard no_grad;
  const at::Tensor rows = rows_BD.to(at::kCPU, at::kDouble);
  const at::Tensor mean = rows.mean(0);
  const at::Tensor deviation = rows.sub(mean).square_().mean(0).sqrt_();
  const double typical = deviation.mean().item<double>();
  return {mean.to(at::kFloat),
          (typical > 0 ? at::clamp_min(deviation, kLeastDeviation * typical) : at::ones_like(deviation))
              .to(at::kFloat)};
}

ClassificationHead::ClassificationHead(const at::Tensor& mean, const at::Tensor& deviation,
                                       int64_t num_classes, uint64_t seed, at::Device device)
    : mean_(mean.to(device, at::kFloat, /*non_blocking=*/false, /*copy=*/true)),
      inverse_deviation_(deviation.reciprocal().to(device, at::kFloat)),
      deviation_(deviation.to(at::kCPU, at::kFloat, /*non_blocking=*/false, /*copy=*/true)),
      weight_(
          model::normal_values({num_classes, mean.size(0)}, kInitialDeviation, seed, "classifier.weight")),
      bias_(at::zeros({num_classes})) {
  weight_.requires_grad_(true);
  bias_.requires_grad_(true);
  parameters_ = std::make_unique<ops::ParameterSet>(std::vector<ops::Parameter>{
      {"classifier.weight", weight_, "classifier", true}, {"classifier.bias", bias_, "classifier", false}});
  parameters_->to(device);
}

at::Tensor ClassificationHead::standardised(const at::Tensor& pooled_BD) const {
  return pooled_BD.sub(mean_).mul_(inverse_deviation_);
}

at::Tensor ClassificationHead::logits(const at::Tensor& pooled_BD) const {
  const at::NoGradGuard no_grad;
  return at::addmm(bias_, standardised(pooled_BD), weight_.t());
}

ClassificationHead::Loss ClassificationHead::loss_with_gradients(const at::Tensor& pooled_BD,
                                                                 const at::Tensor& targets_B,
                                                                 const at::Tensor& weights_B, double scale) {
  const at::NoGradGuard no_grad;
  SCRNA_CHECK(pooled_BD.size(0) == targets_B.size(0) && targets_B.sizes() == weights_B.sizes(),
              "{} cells, {} targets, {} weights", pooled_BD.size(0), targets_B.size(0), weights_B.size(0));
  const at::Tensor z = standardised(pooled_BD);
  const at::Tensor log_p = at::log_softmax(at::addmm(bias_, z, weight_.t()), -1);
  const at::Tensor index = targets_B.unsqueeze(1);
  const at::Tensor chosen = log_p.gather(1, index).squeeze(1);
  at::Tensor d_logits = log_p.exp();
  d_logits.scatter_add_(1, index, at::ones_like(chosen).neg_().unsqueeze(1));
  d_logits.mul_(weights_B.mul(scale).unsqueeze(1));
  weight_.mutable_grad().addmm_(d_logits.t(), z);
  bias_.mutable_grad().add_(d_logits.sum(0));
  return {.sum = chosen.mul(weights_B).sum(at::kDouble).neg_(),
          .d_pooled_BD = at::mm(d_logits, weight_).mul_(inverse_deviation_)};
}

HeadWeights ClassificationHead::weights() const {
  const at::NoGradGuard no_grad;
  const auto copy = [](const at::Tensor& x) {
    return x.detach().to(at::kCPU, at::kFloat, false, /*copy=*/true);
  };
  return {copy(mean_), copy(deviation_), copy(weight_), copy(bias_)};
}

at::Tensor spread_over_tokens(const at::Tensor& d_pooled_BD, const at::Tensor& cu_seqlens_host, bool has_cls,
                              at::ScalarType type) {
  const at::NoGradGuard no_grad;
  const int32_t* begin = cu_seqlens_host.const_data_ptr<int32_t>();
  const int64_t num_cells = cu_seqlens_host.numel() - 1, num_tokens = begin[num_cells];
  SCRNA_CHECK(d_pooled_BD.size(0) == num_cells, "{} rows for {} cells", d_pooled_BD.size(0), num_cells);
  at::Tensor cell_of_token = at::empty({num_tokens}, at::kLong),
             parts = at::empty({num_tokens, 1}, at::kFloat);
  int64_t* cells = cell_of_token.mutable_data_ptr<int64_t>();
  float* part = parts.mutable_data_ptr<float>();
  for (int64_t cell = 0; cell < num_cells; ++cell) {
    const int32_t first = begin[cell] + (has_cls ? 1 : 0);
    for (int32_t token = begin[cell]; token < begin[cell + 1]; ++token) {
      cells[token] = cell;
      part[token] = token < first ? 0.0F : 1.0F / static_cast<float>(begin[cell + 1] - first);
    }
  }
  const at::Device device = d_pooled_BD.device();
  return at::index_select(d_pooled_BD, 0, cell_of_token.to(device)).mul_(parts.to(device)).to(type);
}

}  // namespace scrna::finetune
