#include "lib/ops/attention.h"

#include <cmath>
#include <utility>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include "lib/core/error.h"
#include "lib/ops/attention_composed.h"
#include "lib/ops/attention_contract.h"
#include "lib/ops/attention_flash.h"
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
  bool self_attention = false;  // keys and queries are the same tokens
};

/// The three operands of a fused projection [T, 3, H, K], as views.
Operands split(const at::Tensor& qkv) { return {qkv.select(1, 0), qkv.select(1, 1), qkv.select(1, 2)}; }

/// Copies a vector of int32 from the device of the tokens, which waits for it.
std::vector<int32_t> on_host(const at::Tensor& x) {
  const at::Tensor host = x.to(at::kCPU).contiguous();
  const int32_t* first = host.data_ptr<int32_t>();
  return {first, first + host.numel()};
}

std::vector<TokenRange> ranges_of(const CellTokens& cells, const at::Tensor& cu_seqlens_host = {}) {
  std::vector<TokenRange> ranges;
  if (cells.padded_length > 0) {
    int64_t begin = 0;
    for (const int32_t length : on_host(cells.lengths)) {
      ranges.push_back({begin, length});
      begin += cells.padded_length;
    }
    return ranges;
  }
  const auto begins = on_host(cu_seqlens_host.defined() ? cu_seqlens_host : cells.cu_seqlens);
  for (size_t b = 0; b + 1 < begins.size(); ++b)
    ranges.push_back({begins[b], int64_t{begins[b + 1]} - begins[b]});
  return ranges;
}

ComposedAttention composed_call(const Call& call) {
  const std::vector<TokenRange> queries = ranges_of(call.queries, call.options.cu_seqlens_host);
  return {.queries = queries,
          .keys = call.self_attention ? queries : ranges_of(call.keys),
          .kind = call.options.kind,
          .bias_kind = call.options.bias_kind,
          .scalar_bias = call.options.scalar_bias,
          .cell_bias = call.options.cell_bias,
          .key_bias = call.options.key_bias,
          .scale = call.scale};
}

Outputs forward(const Call& call, const Operands& in) {
  Outputs out;
  if (call.implementation == Implementation::kFlash) {
    attention_flash_forward(call, in, out);
    return out;
  }
  out.o = at::empty(in.q.sizes(), in.q.options());
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
  else if (call.implementation == Implementation::kFlash)
    attention_flash_backward(call, in, d_o, out, gradients);
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
    const auto like = [](const at::Tensor& x) { return at::empty(x.sizes(), x.options()); };
    const Operands gradients = fused ? split(d_first) : Operands{d_first, like(saved[1]), like(saved[2])};
    at::Tensor d_cell_bias;
    if (context->saved_data["bias_gradient"].toBool())
      d_cell_bias = at::empty({call.queries.num_cells()}, first.options().dtype(at::kFloat));
    const Outputs out{.o = {}, .kernel_o = saved[3], .lse = saved[4]};
    ops::backward(call, in, d_outputs[0], out, gradients, d_cell_bias);
    const auto unless_fused = [fused](const at::Tensor& x) { return fused ? at::Tensor() : x; };
    return {d_first, unless_fused(gradients.k), unless_fused(gradients.v), d_cell_bias, at::Tensor()};
  }
};

c10::intrusive_ptr<Call> make_call(const Operands& in, const CellTokens& queries, const CellTokens& keys,
                                   const AttentionOptions& options) {
  check_attention(in, queries, keys, options);
  auto call = c10::make_intrusive<Call>();
  call->options = options;
  call->options.cell_bias = options.cell_bias.defined() ? options.cell_bias.detach() : at::Tensor();
  call->queries = queries;
  call->keys = keys;
  call->scale = options.scale.value_or(1.0F / std::sqrt(static_cast<float>(in.q.size(2))));
  call->implementation =
      choose_attention(in.q.device(), in.q.scalar_type(), in.q.size(2), options).implementation;
  return call;
}

c10::intrusive_ptr<Call> make_self_call(const Operands& in, const CellTokens& cells,
                                        const AttentionOptions& options) {
  auto call = make_call(in, cells, cells, options);
  call->self_attention = true;
  return call;
}

/// The tensor that autograd should see as the bias, if any.
OptionalTensor differentiable_bias(const AttentionOptions& options) {
  const bool used = options.kind == AttentionKind::kSigmoid && options.bias_kind == BiasKind::kPerCell;
  return used ? OptionalTensor(options.cell_bias) : std::nullopt;
}

/// [B, S, ...] as [B * S, ...]: a view where the strides allow it.
at::Tensor flat(const at::Tensor& x) { return x.flatten(0, 1); }

/// Tokens of padded cells [B, S, ...]. S = 0 has nothing to pad: an empty pack.
CellTokens padded_cells(const at::Tensor& x, const at::Tensor& lengths) {
  if (x.size(1) == 0)
    return {.cu_seqlens = at::zeros({x.size(0) + 1}, x.options().dtype(at::kInt).requires_grad(false))};
  return {.lengths = lengths, .padded_length = x.size(1), .max_length = x.size(1)};
}

AttentionOptions flat_key_bias(AttentionOptions options) {
  if (options.key_bias.defined()) options.key_bias = options.key_bias.reshape({-1});
  return options;
}

/// Runs the call as one node of autograd.
at::Tensor recorded(const Operands& in, const AttentionOptions& options,
                    const c10::intrusive_ptr<Call>& call) {
  return AttentionFunction::apply(in.q, OptionalTensor(in.k), OptionalTensor(in.v),
                                  differentiable_bias(options), call);
}

at::Tensor recorded(const at::Tensor& qkv, const AttentionOptions& options,
                    const c10::intrusive_ptr<Call>& call) {
  return AttentionFunction::apply(qkv, OptionalTensor(), OptionalTensor(), differentiable_bias(options),
                                  call);
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
  const std::string flash_missing = attention_flash_missing(device, type, head_width, options);
  if (options.implementation == Implementation::kFlash && !flash_missing.empty())
    throw ConfigError(
        "attention: LibTorch's FlashAttention-2 was asked for, but {}; let the choice be automatic",
        flash_missing);
  const std::string missing = attention_kernel_missing(device, type, head_width, options.kind);
  if (options.implementation != Implementation::kFlash && missing.empty())
    return {Implementation::kKernel, attention_kernel_name(device, head_width)};
  if (options.implementation != Implementation::kKernel && flash_missing.empty())
    return {Implementation::kFlash, fmt::format("LibTorch's FlashAttention-2 on packs: {}", missing)};
  const auto refuse = [&](const std::string& reason, const std::string& table) {
    throw ConfigError(
        "attention: {}; supported on {}: {}. Choose such a type and head width (width / heads), or set "
        "model.attention_kernel to composed: LibTorch operators, which take any but are many times slower",
        reason, device.str(), table);
  };
  if (const std::string table = attention_kernel_table(device, options.kind); !table.empty())
    refuse(missing, table);
  if (options.implementation == Implementation::kKernel)
    throw ConfigError(
        "attention: a kernel was asked for, but {}. Set model.attention_kernel to auto or composed", missing);
  if (const std::string table = attention_flash_table(device, options); !table.empty())
    refuse(flash_missing, table);
  const bool on_gpu = device.is_cuda() && options.kind == AttentionKind::kSoftmax;
  return {Implementation::kComposed, fmt::format("composed LibTorch operators: {}{}{}", missing,
                                                 on_gpu ? "; " : "", on_gpu ? flash_missing : std::string())};
}

at::Tensor attention(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& v_THK,
                     const at::Tensor& cu_seqlens, int64_t max_cell_tokens, const AttentionOptions& options) {
  const Operands in{q_THK, k_THK, v_THK};
  return recorded(in, options,
                  make_self_call(in, {.cu_seqlens = cu_seqlens, .max_length = max_cell_tokens}, options));
}

at::Tensor attention_qkv(const at::Tensor& qkv_T3HK, const at::Tensor& cu_seqlens, int64_t max_cell_tokens,
                         const AttentionOptions& options) {
  SCRNA_CHECK(qkv_T3HK.dim() == 4 && qkv_T3HK.size(1) == 3, "attention_qkv: qkv must be [T, 3, H, K]");
  const CellTokens cells{.cu_seqlens = cu_seqlens, .max_length = max_cell_tokens};
  return recorded(qkv_T3HK, options, make_self_call(split(qkv_T3HK), cells, options));
}

at::Tensor attention_cross(const at::Tensor& q_THK, const at::Tensor& k_THK, const at::Tensor& v_THK,
                           const at::Tensor& query_cu_seqlens, const at::Tensor& key_cu_seqlens,
                           int64_t max_query_tokens, int64_t max_key_tokens,
                           const AttentionOptions& options) {
  SCRNA_CHECK(!options.cu_seqlens_host.defined(), "attention_cross: takes no cu_seqlens_host");
  const Operands in{q_THK, k_THK, v_THK};
  return recorded(in, options,
                  make_call(in, {.cu_seqlens = query_cu_seqlens, .max_length = max_query_tokens},
                            {.cu_seqlens = key_cu_seqlens, .max_length = max_key_tokens}, options));
}

at::Tensor attention_padded(const at::Tensor& q_BSHK, const at::Tensor& k_BSHK, const at::Tensor& v_BSHK,
                            const at::Tensor& query_lengths, const at::Tensor& key_lengths,
                            const AttentionOptions& given) {
  SCRNA_CHECK(q_BSHK.dim() == 4 && k_BSHK.dim() == 4 && k_BSHK.size(0) == q_BSHK.size(0) &&
                  v_BSHK.sizes() == k_BSHK.sizes(),
              "attention_padded: q must be [B, S, H, K], k and v [B, S_k, H, K]");
  SCRNA_CHECK(!given.cu_seqlens_host.defined(), "attention_padded: takes no cu_seqlens_host");
  const AttentionOptions options = flat_key_bias(given);
  const Operands in{flat(q_BSHK), flat(k_BSHK), flat(v_BSHK)};
  const auto call =
      make_call(in, padded_cells(q_BSHK, query_lengths), padded_cells(k_BSHK, key_lengths), options);
  return recorded(in, options, call).view(q_BSHK.sizes());
}

at::Tensor attention_padded_qkv(const at::Tensor& qkv_BS3HK, const at::Tensor& lengths,
                                const AttentionOptions& given) {
  SCRNA_CHECK(qkv_BS3HK.dim() == 5 && qkv_BS3HK.size(2) == 3,
              "attention_padded_qkv: qkv must be [B, S, 3, H, K]");
  SCRNA_CHECK(!given.cu_seqlens_host.defined(), "attention_padded_qkv: takes no cu_seqlens_host");
  const AttentionOptions options = flat_key_bias(given);
  const at::Tensor qkv = flat(qkv_BS3HK);
  const auto call = make_self_call(split(qkv), padded_cells(qkv_BS3HK, lengths), options);
  return recorded(qkv, options, call)
      .view({qkv_BS3HK.size(0), qkv_BS3HK.size(1), qkv_BS3HK.size(3), qkv_BS3HK.size(4)});
}

}  // namespace scrna::ops
