#include "lib/ops/attention.h"

#include <cmath>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "kernels/attention_cpu.h"
#include "lib/core/error.h"
#include "lib/ops/attention_composed.h"
#include "lib/ops/attention_kernel.h"

namespace scrna::ops {
namespace {

using kernels::AttentionKind;
using kernels::BiasKind;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<at::Tensor>;

using Operands = AttentionOperands;
using Outputs = AttentionOutputs;

/// The part of a call that is not a differentiable tensor; travels from forward to backward.
struct Call : torch::CustomClassHolder, AttentionCall {
  Implementation implementation = Implementation::kComposed;
};

/// The three operands of a fused projection [T, 3, H, K], as views.
Operands split(const at::Tensor& qkv) { return {qkv.select(1, 0), qkv.select(1, 1), qkv.select(1, 2)}; }

ComposedAttention composed_call(const Call& call) {
  const at::Tensor& given = call.options.cu_seqlens_host;
  const at::Tensor host = (given.defined() ? given : call.cu_seqlens).to(at::kCPU).contiguous();
  const int32_t* first = host.data_ptr<int32_t>();
  return {.cu_seqlens = {first, first + host.numel()},
          .kind = call.options.kind,
          .bias_kind = call.options.bias_kind,
          .scalar_bias = call.options.scalar_bias,
          .cell_bias = call.options.cell_bias,
          .key_bias = call.options.key_bias,
          .scale = call.scale};
}

Outputs forward(const Call& call, const Operands& in) {
  Outputs out{.o = at::empty(in.q.sizes(), in.q.options()), .kernel_o = {}, .lse = {}};
  if (call.implementation == Implementation::kComposed)
    attention_composed_forward(composed_call(call), in.q, in.k, in.v, out.o);
  else
    attention_kernel_forward(call, in, out);
  return out;
}

void backward(const Call& call, const Operands& in, const at::Tensor& d_o, const Outputs& out,
              const Operands& gradients, const at::Tensor& d_cell_bias) {
  if (call.implementation == Implementation::kComposed)
    attention_composed_backward(composed_call(call), in.q, in.k, in.v, d_o, gradients.q, gradients.k,
                                gradients.v, d_cell_bias);
  else
    attention_kernel_backward(call, in, d_o, out, gradients, d_cell_bias);
}

/// first = q and k, v given; or first = qkv [T, 3, H, K] and no k, v. cell_bias is an argument of its own
/// because autograd only sees tensors that are arguments.
class AttentionFunction : public torch::autograd::Function<AttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& first, const OptionalTensor& k,
                            const OptionalTensor& v, const OptionalTensor& cell_bias,
                            const c10::intrusive_ptr<Call>& call) {
    const Operands in = k.has_value() ? Operands{first, *k, *v} : split(first);
    const Outputs out = ops::forward(*call, in);
    context->save_for_backward(
        {first, k.value_or(at::Tensor()), v.value_or(at::Tensor()), out.kernel_o, out.lse});
    context->saved_data["call"] = c10::IValue::make_capsule(call);
    context->saved_data["bias_gradient"] = cell_bias.has_value() && cell_bias->requires_grad();
    return out.o;
  }

  static variable_list backward(AutogradContext* context, const variable_list& d_outputs) {
    const variable_list saved = context->get_saved_variables();
    const auto capsule = context->saved_data["call"].toCapsule();
    const Call& call = *static_cast<const Call*>(capsule.get());
    const at::Tensor& first = saved[0];
    const bool fused = !saved[1].defined();
    const at::Tensor d_first = at::empty(first.sizes(), first.options());
    const Operands in = fused ? split(first) : Operands{first, saved[1], saved[2]};
    const Operands gradients = fused ? split(d_first)
                                     : Operands{d_first, at::empty(first.sizes(), first.options()),
                                                at::empty(first.sizes(), first.options())};
    at::Tensor d_cell_bias;
    if (context->saved_data["bias_gradient"].toBool())
      d_cell_bias = at::empty({call.cu_seqlens.numel() - 1}, first.options().dtype(at::kFloat));
    const Outputs out{.o = {}, .kernel_o = saved[3], .lse = saved[4]};
    ops::backward(call, in, d_outputs[0], out, gradients, d_cell_bias);
    const auto unless_fused = [fused](const at::Tensor& x) { return fused ? at::Tensor() : x; };
    return {d_first, unless_fused(gradients.k), unless_fused(gradients.v), d_cell_bias, at::Tensor()};
  }
};

void check_vector(const at::Tensor& x, const char* name, int64_t size, at::ScalarType type,
                  const at::Device& device) {
  SCRNA_CHECK(x.dim() == 1 && x.numel() == size && x.is_contiguous() && x.scalar_type() == type,
              "attention: {} must be a contiguous vector of {} {}, got {} of {} elements", name, size,
              c10::toString(type), c10::toString(x.scalar_type()), x.numel());
  SCRNA_CHECK(x.device() == device, "attention: {} is on {}, the tokens are on {}", name, x.device().str(),
              device.str());
}

void check_cu_seqlens(const at::Tensor& host, int64_t num_tokens, int64_t max_cell_tokens) {
  const int32_t* begin = host.data_ptr<int32_t>();
  const int64_t num_cells = host.numel() - 1;
  SCRNA_CHECK(begin[0] == 0 && begin[num_cells] == num_tokens,
              "attention: cu_seqlens must run from 0 to the {} tokens, got {} ... {}", num_tokens, begin[0],
              begin[num_cells]);
  for (int64_t b = 0; b < num_cells; ++b) {
    const int64_t length = int64_t{begin[b + 1]} - begin[b];
    SCRNA_CHECK(length >= 0 && length <= max_cell_tokens,
                "attention: cell {} has {} tokens by cu_seqlens, expected 0 to max_cell_tokens = {}", b,
                length, max_cell_tokens);
  }
}

void check(const Operands& in, const at::Tensor& cu_seqlens, int64_t max_cell_tokens,
           const AttentionOptions& options) {
  const at::Device device = in.q.device();
  for (const at::Tensor& x : {in.q, in.k, in.v}) {
    SCRNA_CHECK(x.dim() == 3 && x.sizes() == in.q.sizes(), "attention: q, k and v must all be [T, H, K]");
    SCRNA_CHECK(x.scalar_type() == in.q.scalar_type(), "attention: q, k and v must have one type");
    SCRNA_CHECK(x.device() == device, "attention: q, k and v must be on one device");
    SCRNA_CHECK(x.size(2) <= 1 || x.stride(2) == 1,
                "attention: the last dimension of q, k and v must be contiguous");
  }
  SCRNA_CHECK(cu_seqlens.numel() >= 1, "attention: cu_seqlens must have B + 1 elements");
  const int64_t num_cells = cu_seqlens.numel() - 1;
  check_vector(cu_seqlens, "cu_seqlens", num_cells + 1, at::kInt, device);
  if (options.cu_seqlens_host.defined())
    check_vector(options.cu_seqlens_host, "cu_seqlens_host", num_cells + 1, at::kInt, at::kCPU);
  if (cu_seqlens.is_cpu()) check_cu_seqlens(cu_seqlens, in.q.size(0), max_cell_tokens);
  if (options.kind == AttentionKind::kSigmoid && options.bias_kind == BiasKind::kPerCell) {
    SCRNA_CHECK(options.cell_bias.defined(), "attention: bias kPerCell needs options.cell_bias");
    check_vector(options.cell_bias, "cell_bias", num_cells, at::kFloat, device);
  }
  if (options.key_bias.defined()) {
    check_vector(options.key_bias, "key_bias", in.k.size(0), at::kFloat, device);
    SCRNA_CHECK(!options.key_bias.requires_grad(), "attention: key_bias has no gradient; detach it");
  }
}

c10::intrusive_ptr<Call> make_call(const Operands& in, const at::Tensor& cu_seqlens, int64_t max_cell_tokens,
                                   const AttentionOptions& options) {
  check(in, cu_seqlens, max_cell_tokens, options);
  auto call = c10::make_intrusive<Call>();
  call->options = options;
  call->options.cell_bias = options.cell_bias.defined() ? options.cell_bias.detach() : at::Tensor();
  call->cu_seqlens = cu_seqlens;
  call->max_cell_tokens = max_cell_tokens;
  call->scale = options.scale.value_or(1.0F / std::sqrt(static_cast<float>(in.q.size(2))));
  call->implementation =
      choose_attention(in.q.device(), in.q.scalar_type(), in.q.size(2), options).implementation;
  return call;
}

/// The tensor that autograd should see as the bias, if any.
OptionalTensor differentiable_bias(const AttentionOptions& options) {
  const bool used = options.kind == AttentionKind::kSigmoid && options.bias_kind == BiasKind::kPerCell;
  return used ? OptionalTensor(options.cell_bias) : std::nullopt;
}

}  // namespace

AttentionChoice choose_attention(const at::Device& device, at::ScalarType type, int64_t head_width,
                                 const AttentionOptions& options) {
  const bool composed_type =
      type == at::kFloat || type == at::kBFloat16 || type == at::kHalf || type == at::kDouble;
  if (!composed_type)
    throw ConfigError("attention: type {} is not supported; use fp32, bf16 or fp16", c10::toString(type));
  if (options.implementation == Implementation::kComposed)
    return {Implementation::kComposed, "composed LibTorch operators, as configured"};
  const std::string missing = attention_kernel_missing(device, type, head_width, options);
  if (missing.empty()) return {Implementation::kKernel, attention_kernel_name(device)};
  if (options.implementation == Implementation::kKernel)
    throw ConfigError(
        "attention: a kernel was asked for, but {}; supported: CUDA with compute capability 9.0, sigmoid, "
        "bf16 "
        "and fp16 with head widths 64 and 128; CPU fp32, bf16, fp16 (computed in fp32) with head widths 1 to "
        "{}. "
        "Set the implementation to automatic or composed",
        missing, kernels::kMaxCpuHeadWidth);
  return {Implementation::kComposed, fmt::format("composed LibTorch operators: {}", missing)};
}

at::Tensor attention(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& v_THK,
                     const at::Tensor& cu_seqlens, int64_t max_cell_tokens, const AttentionOptions& options) {
  const auto call = make_call({q_THK, k_THK, v_THK}, cu_seqlens, max_cell_tokens, options);
  return AttentionFunction::apply(q_THK, OptionalTensor(k_THK), OptionalTensor(v_THK),
                                  differentiable_bias(options), call);
}

at::Tensor attention_qkv(const at::Tensor& qkv_T3HK, const at::Tensor& cu_seqlens, int64_t max_cell_tokens,
                         const AttentionOptions& options) {
  SCRNA_CHECK(qkv_T3HK.dim() == 4 && qkv_T3HK.size(1) == 3, "attention_qkv: qkv must be [T, 3, H, K]");
  const auto call = make_call(split(qkv_T3HK), cu_seqlens, max_cell_tokens, options);
  return AttentionFunction::apply(qkv_T3HK, OptionalTensor(), OptionalTensor(), differentiable_bias(options),
                                  call);
}

}  // namespace scrna::ops
