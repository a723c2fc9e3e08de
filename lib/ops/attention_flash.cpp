#include "lib/ops/attention_flash.h"

#include <utility>

#include <ATen/Context.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "lib/core/error.h"

namespace scrna::ops {
namespace {

// Multiples of 8 up to this: backward passes of wider heads need more shared memory than some GPUs have.
constexpr int64_t kMaxHeadWidth = 192;
constexpr int64_t kHeadWidthStep = 8;

/// Where parts of a pack begin, [parts + 1] int32 on the device, and at least the longest part.
struct Parts {
  at::Tensor queries, keys;
  int64_t max_queries = 0, max_keys = 0;
};

/// Begins of the three parts of each padded cell; the second part is `middle` long, from the end of the first
/// on.
at::Tensor padded_begins(const CellTokens& cells, bool padding_is_second) {
  const int64_t num_cells = cells.num_cells();
  const int64_t padded = cells.padded_length;
  const at::TensorOptions options = cells.lengths.options();
  const at::Tensor begin = at::arange(0, num_cells * padded, padded, options);
  const at::Tensor end_of_cell = begin.add(cells.lengths);
  const at::Tensor third = padding_is_second ? begin.add(padded) : end_of_cell;
  return at::cat(
      {at::stack({begin, end_of_cell, third}, 1).view({-1}), at::full({1}, num_cells * padded, options)});
}

Parts parts_of(const AttentionCall& call) {
  const bool padded = call.queries.padded_length > 0 || call.keys.padded_length > 0;
  if (!padded)
    return {call.queries.cu_seqlens, call.keys.cu_seqlens, call.queries.max_length, call.keys.max_length};
  return {padded_begins(call.queries, true), padded_begins(call.keys, false), call.queries.max_length,
          call.keys.max_length};
}

/// The kernels read 16 bytes at a time.
at::Tensor readable(const at::Tensor& x_THK) {
  const int64_t step = 16 / static_cast<int64_t>(x_THK.element_size());
  const bool possible = x_THK.stride(2) == 1 && x_THK.stride(1) % step == 0 && x_THK.stride(0) % step == 0 &&
                        reinterpret_cast<uintptr_t>(x_THK.data_ptr()) % 16 == 0;
  return possible ? x_THK : x_THK.clone(at::MemoryFormat::Contiguous);
}

/// Queries or keys are all missing: there is nothing to launch.
bool is_empty(const AttentionCall& call, const AttentionOperands& in) {
  return in.q.numel() == 0 || in.k.numel() == 0 || call.queries.num_cells() == 0;
}

/// The option asks for deterministic gradients; LibTorch's operator knows only LibTorch's own switch.
class DeterministicScope {
 public:
  explicit DeterministicScope(bool wanted)
      : was_(at::globalContext().deterministicAlgorithms()),
        was_warning_(at::globalContext().deterministicAlgorithmsWarnOnly()),
        changes_(wanted && (!was_ || was_warning_)) {
    if (changes_) at::globalContext().setDeterministicAlgorithms(true, false);
  }
  ~DeterministicScope() {
    if (changes_) at::globalContext().setDeterministicAlgorithms(was_, was_warning_);
  }
  DeterministicScope(const DeterministicScope&) = delete;
  DeterministicScope& operator=(const DeterministicScope&) = delete;

 private:
  bool was_, was_warning_, changes_;
};

/// Why this device has no FlashAttention-2; empty: it has.
std::string device_missing(const at::Device& device) {
  if (!device.is_cuda()) return fmt::format("LibTorch's FlashAttention-2 is for CUDA, not {}", device.str());
  const int capability = compute_capability(device);
  if (capability >= 80) return {};
  return fmt::format("LibTorch's FlashAttention-2 needs compute capability 8.0, {} has {}.{}", device.str(),
                     capability / 10, capability % 10);
}

}  // namespace

std::string attention_flash_missing(const at::Device& device, at::ScalarType type, int64_t head_width,
                                    const AttentionOptions& options) {
  if (options.kind != kernels::AttentionKind::kSoftmax) return "LibTorch's FlashAttention-2 is softmax only";
  if (std::string missing = device_missing(device); !missing.empty()) return missing;
  if (options.key_bias.defined()) return "LibTorch's FlashAttention-2 takes no key bias";
  if (type != at::kBFloat16 && type != at::kHalf)
    return fmt::format("LibTorch's FlashAttention-2 takes bf16 and fp16, not {}", c10::toString(type));
  if (head_width > kMaxHeadWidth || head_width % kHeadWidthStep != 0)
    return fmt::format(
        "LibTorch's FlashAttention-2 takes head widths that are multiples of {} up to {}, not {}",
        kHeadWidthStep, kMaxHeadWidth, head_width);
  return {};
}

std::string attention_flash_table(const at::Device& device, const AttentionOptions& options) {
  if (!attention_flash_missing(device, at::kBFloat16, kHeadWidthStep, options).empty()) return {};
  return fmt::format("bf16 and fp16 with head widths in multiples of {} up to {}", kHeadWidthStep,
                     kMaxHeadWidth);
}

void attention_flash_forward(const AttentionCall& call, const AttentionOperands& in, AttentionOutputs& out) {
  if (is_empty(call, in)) {
    out.o = at::zeros(in.q.sizes(), in.q.options());
    out.kernel_o = out.o;
    out.lse = at::empty({in.q.size(1), in.q.size(0)}, in.q.options().dtype(at::kFloat));
    return;
  }
  const Parts parts = parts_of(call);
  auto result = at::_flash_attention_forward(readable(in.q), readable(in.k), readable(in.v), parts.queries,
                                             parts.keys, parts.max_queries, parts.max_keys,
                                             /*dropout_p=*/0.0, /*is_causal=*/false,
                                             /*return_debug_mask=*/false, std::optional<double>(call.scale));
  out.o = std::move(std::get<0>(result));
  out.kernel_o = out.o;
  out.lse = std::move(std::get<1>(result));
}

void attention_flash_backward(const AttentionCall& call, const AttentionOperands& in, const at::Tensor& d_o,
                              const AttentionOutputs& out, const AttentionOperands& gradients) {
  if (is_empty(call, in)) {
    for (const at::Tensor& gradient : {gradients.q, gradients.k, gradients.v}) gradient.zero_();
    return;
  }
  // LibTorch's operator heeds its own switch only when that is not set to warn; ours heed it always (attention.h).
  const DeterministicScope deterministic(call.options.deterministic ||
                                         at::globalContext().deterministicAlgorithms());
  const Parts parts = parts_of(call);
  const at::Tensor no_random_state = at::empty({2}, in.q.options().dtype(at::kUInt64));  // of no dropout
  const auto [d_q, d_k, d_v] = at::_flash_attention_backward(
      readable(d_o.to(in.q.scalar_type())), readable(in.q), readable(in.k), readable(in.v), out.kernel_o,
      out.lse, parts.queries, parts.keys, parts.max_queries, parts.max_keys, /*dropout_p=*/0.0,
      /*is_causal=*/false, no_random_state, no_random_state, std::optional<double>(call.scale));
  gradients.q.copy_(d_q);
  gradients.k.copy_(d_k);
  gradients.v.copy_(d_v);
}

}  // namespace scrna::ops
