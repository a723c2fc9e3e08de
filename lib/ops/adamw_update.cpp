#include "lib/ops/adamw_update.h"

#include <algorithm>
#include <cmath>
#include <string>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "lib/core/error.h"
#include "lib/ops/kernel_choice.h"

#ifdef SCRNA_CUDA_ENABLED
#include "kernels/adamw_cuda.h"
#endif

namespace scrna::ops {
namespace {

constexpr int64_t kReportSize = 3;

// What is updated: a range of values and gradients, and where its moments begin.
struct Span {
  ElementRange range;
  int64_t moments_begin = 0;
};

std::vector<Span> spans_of(const AdamWBuffers& b) {
  if (b.ranges.empty()) return {{{0, b.values.numel()}, 0}};
  std::vector<Span> spans;
  int64_t moments = 0;
  for (const ElementRange& range : b.ranges) {
    spans.push_back({range, moments});
    moments += range.size();
  }
  return spans;
}

int64_t decayed_of(const AdamWBuffers& b, ElementRange range) {
  return std::clamp<int64_t>(b.num_decayed - range.begin, 0, range.size());
}

void check(const AdamWBuffers& b, const at::Tensor& squares, const at::Tensor& loss) {
  const at::Device device = b.values.device();
  int64_t num_updated = b.ranges.empty() ? b.values.numel() : 0;
  for (const ElementRange& range : b.ranges) {
    SCRNA_CHECK(range.begin >= 0 && range.size() > 0 && range.end <= b.values.numel(),
                "adamw_update: elements {} to {} of {}", range.begin, range.end, b.values.numel());
    num_updated += range.size();
  }
  const auto check_buffer = [&](const at::Tensor& buffer, int64_t num_elements) {
    SCRNA_CHECK(buffer.dim() == 1 && buffer.numel() == num_elements && buffer.scalar_type() == at::kFloat &&
                    buffer.is_contiguous() && buffer.device() == device,
                "adamw_update: buffers must be contiguous fp32 [{}] on {}", num_elements, device.str());
  };
  for (const at::Tensor& buffer : {b.values, b.gradients}) check_buffer(buffer, b.values.numel());
  for (const at::Tensor& buffer : {b.mean, b.squared_mean}) check_buffer(buffer, num_updated);
  SCRNA_CHECK(
      !b.compute_copy.defined() ||
          (b.compute_copy.numel() == b.values.numel() && b.compute_copy.scalar_type() == at::kBFloat16 &&
           b.compute_copy.is_contiguous() && b.compute_copy.device() == device),
      "adamw_update: compute_copy must be contiguous bf16 [{}] on {}", b.values.numel(), device.str());
  SCRNA_CHECK(b.num_decayed >= 0 && b.num_decayed <= b.values.numel(),
              "adamw_update: {} of {} elements decayed", b.num_decayed, b.values.numel());
  SCRNA_CHECK(b.num_updates.dim() == 0 && b.num_updates.scalar_type() == at::kLong &&
                  b.num_updates.device() == device,
              "adamw_update: num_updates must be a 0-d int64 on {}", device.str());
  SCRNA_CHECK(squares.dim() == 1 && squares.scalar_type() == at::kDouble && squares.is_contiguous() &&
                  squares.device() == device,
              "adamw_update: squares must be fp64 [layers] on {}", device.str());
  SCRNA_CHECK(
      !loss.defined() || (loss.numel() == 1 && loss.scalar_type() == at::kFloat && loss.device() == device),
      "adamw_update: loss must be one fp32 number on {}", device.str());
}

at::Tensor composed(const AdamWBuffers& b, const at::Tensor& squares, const at::Tensor& loss,
                    const AdamWUpdate& update) {
  const double norm = std::sqrt(squares.sum().item<double>());
  const bool applied = std::isfinite(norm) && (!loss.defined() || std::isfinite(loss.item<float>()));
  const double factor = update.clip_norm > 0 && norm > update.clip_norm ? update.clip_norm / norm : 1.0;
  at::Tensor report = at::zeros({kReportSize}, at::TensorOptions(at::kDouble));
  double* numbers = report.mutable_data_ptr<double>();
  numbers[0] = norm;
  numbers[1] = factor;
  numbers[2] = applied ? 1.0 : 0.0;
  if (applied) {
    at::Tensor updates = b.num_updates;
    updates.add_(1);
    const at::Tensor step = updates.to(at::kFloat);
    const auto part = [&](ElementRange range, int64_t moments_begin, double weight_decay) {
      if (range.size() == 0) return;
      const auto in_buffer = [&](const at::Tensor& x) { return x.narrow(0, range.begin, range.size()); };
      const auto in_moments = [&](const at::Tensor& x) { return x.narrow(0, moments_begin, range.size()); };
      const at::Tensor gradients = in_buffer(b.gradients);
      at::_fused_adamw_({in_buffer(b.values)}, {factor == 1.0 ? gradients : gradients.mul(factor)},
                        {in_moments(b.mean)}, {in_moments(b.squared_mean)},
                        /*max_exp_avg_sqs=*/{}, {step}, update.learning_rate, update.beta1, update.beta2,
                        weight_decay, update.epsilon, /*amsgrad=*/false, /*maximize=*/false);
    };
    for (const auto& [range, moments_begin] : spans_of(b)) {
      const int64_t decayed = decayed_of(b, range);
      part({range.begin, range.begin + decayed}, moments_begin, update.weight_decay);
      part({range.begin + decayed, range.end}, moments_begin + decayed, 0.0);
    }
    at::Tensor copy = b.compute_copy;
    if (copy.defined()) copy.copy_(b.values);
  }
  return report.to(b.values.device());
}

std::string missing_for_kernel(const AdamWBuffers& b) {
  const std::string unreadable =
      unreadable_by_kernels({b.values, b.gradients, b.mean, b.squared_mean, b.compute_copy});
  if (!unreadable.empty()) return unreadable;
#ifdef SCRNA_CUDA_ENABLED
  const auto is_odd = [](const ElementRange& range) {
    return range.begin % kernels::kFlatRow != 0 || range.end % kernels::kFlatRow != 0;
  };
  if (b.values.numel() % kernels::kFlatRow != 0 || b.num_decayed % kernels::kFlatRow != 0 ||
      std::ranges::any_of(b.ranges, is_odd))
    return "it takes buffers of rows of 1,024 elements";
#endif
  return {};
}

#ifdef SCRNA_CUDA_ENABLED
at::Tensor by_kernel(const AdamWBuffers& b, const at::Tensor& squares, const at::Tensor& loss,
                     const AdamWUpdate& update) {
  const kernels::AdamWSettings settings{.learning_rate = update.learning_rate,
                                        .beta1 = update.beta1,
                                        .beta2 = update.beta2,
                                        .epsilon = update.epsilon,
                                        .weight_decay = update.weight_decay,
                                        .clip_norm = update.clip_norm};
  const at::Tensor control = at::empty({kernels::kControlSize}, squares.options());
  launch_on_stream(b.values, "adamw_update", [&](cudaStream_t stream) {
    const cudaError_t error =
        kernels::adamw_decide_cuda({.settings = settings,
                                    .squares = squares.data_ptr<double>(),
                                    .num_layers = squares.numel(),
                                    .loss = loss.defined() ? loss.data_ptr<float>() : nullptr,
                                    .num_updates = b.num_updates.data_ptr<int64_t>(),
                                    .control = control.data_ptr<double>()},
                                   stream);
    if (error != cudaSuccess) return error;
    for (const auto& [range, moments_begin] : spans_of(b)) {
      const cudaError_t problem = kernels::adamw_step_cuda(
          {.settings = settings,
           .num_rows = range.size() / kernels::kFlatRow,
           .num_decayed_rows = decayed_of(b, range) / kernels::kFlatRow,
           .control = control.data_ptr<double>(),
           .gradients = b.gradients.data_ptr<float>() + range.begin,
           .values = b.values.data_ptr<float>() + range.begin,
           .mean = b.mean.data_ptr<float>() + moments_begin,
           .squared_mean = b.squared_mean.data_ptr<float>() + moments_begin,
           .bfloat16_copy = b.compute_copy.defined()
                                ? b.compute_copy.data_ptr<at::BFloat16>() + range.begin
                                : nullptr},
          stream);
      if (problem != cudaSuccess) return problem;
    }
    return cudaSuccess;
  });
  return control.narrow(0, 0, kReportSize);
}
#endif

}  // namespace

at::Tensor adamw_update(const AdamWBuffers& buffers, const at::Tensor& squares, const at::Tensor& loss,
                        const AdamWUpdate& update, Implementation implementation) {
  check(buffers, squares, loss);
  const at::NoGradGuard no_grad;
  if (use_kernel(implementation, "adamw_update", missing_for_kernel(buffers))) {
#ifdef SCRNA_CUDA_ENABLED
    return by_kernel(buffers, squares, loss, update);
#endif
  }
  return composed(buffers, squares, loss, update);
}

}  // namespace scrna::ops
