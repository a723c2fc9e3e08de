// Attention problems of every layout for tests of lib/ops/attention on any device: queries and keys packed or
// padded, the same tokens or others; their fp64 oracle; one forward and backward pass through autograd.
// Padding of every operand, of the gradient of the output and of the key bias holds NaN.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include "tests/support/attention_pack.h"

namespace scrna::test {

/// How the operands lie in memory: each by itself; views of one tensor with a dimension for q, k and v; views
/// that no kernel can read in place (padded only).
enum class Views { kSeparate, kShared, kCut };

struct LayoutCase {
  std::string name;
  std::vector<int32_t> query_lengths;
  std::vector<int32_t> key_lengths;  // empty: self-attention
  int64_t query_padding = -1;        // S = longest + this many; -1: packed
  int64_t key_padding = -1;
};

inline std::vector<LayoutCase> layout_cases() {
  return {
      {"padded", {5, 0, 65, 1, 40}, {}, 3, 3},
      {"padded without room", {64, 64}, {}, 0, 0},
      {"padded, all cells empty", {0, 0}, {}, 7, 7},
      {"padded, other keys", {5, 64, 0, 130, 1}, {129, 1, 9, 65, 0}, 3, 0},
      {"padded, no query at all", {0, 0}, {3, 70}, 0, 2},
      {"packed, other keys", {5, 64, 0, 130, 1, 0}, {129, 1, 9, 65, 0, 0}, -1, -1},
  };
}

class Layout {
 public:
  explicit Layout(LayoutCase given, int64_t width = 32) : case_(std::move(given)), width_(width) {
    self_attention_ = case_.key_lengths.empty();
    if (self_attention_) case_.key_lengths = case_.query_lengths;
    query_ = side(case_.query_lengths, case_.query_padding);
    key_ = side(case_.key_lengths, case_.key_padding);
    q_ = tokens(query_), d_o_ = tokens(query_), k_ = tokens(key_), v_ = tokens(key_);
    cell_bias = at::randn({num_cells()}) - 2.0;
    key_bias = at::randn({key_.total});
    for_padding(key_, [&](int64_t token) { key_bias.narrow(0, token, 1).fill_(kNaN); });
  }

  [[nodiscard]] bool self_attention() const { return self_attention_; }
  [[nodiscard]] bool padded() const { return query_.padded >= 0; }
  [[nodiscard]] const std::string& name() const { return case_.name; }
  [[nodiscard]] std::vector<ops::AttentionOptions> options() const {
    std::vector<ops::AttentionOptions> all(4);
    all[1].bias_kind = kernels::BiasKind::kScalar;
    all[1].scalar_bias = -1.5F;
    all[2].bias_kind = kernels::BiasKind::kPerCell;
    all[2].cell_bias = cell_bias;
    all[2].key_bias = key_bias;
    all[3].kind = kernels::AttentionKind::kSoftmax;
    all[3].key_bias = key_bias;
    return all;
  }

  [[nodiscard]] AttentionResult64 oracle(const ops::AttentionOptions& options) const {
    kernels::AttentionShape shape;
    shape.num_cells = num_cells();
    shape.num_heads = kHeads;
    shape.head_width = width_;
    shape.query = ragged(query_);
    shape.key = ragged(key_);
    shape.kind = options.kind;
    shape.bias_kind = options.bias_kind;
    shape.scalar_bias = options.scalar_bias;
    if (options.cell_bias.defined()) shape.cell_bias = options.cell_bias.data_ptr<float>();
    if (options.key_bias.defined()) shape.key_bias = options.key_bias.data_ptr<float>();
    shape.scale = 1.0F / std::sqrt(static_cast<float>(width_));
    return attention_reference64(shape, flat(q_), flat(k_), flat(v_), flat(d_o_));
  }

  /// Outputs and gradients, flattened to [tokens, H, K].
  [[nodiscard]] Result run(ops::AttentionOptions options, at::ScalarType type, Views views,
                           at::Device device = at::kCPU) const {
    if (options.cell_bias.defined())
      options.cell_bias = options.cell_bias.to(device).clone().requires_grad_();
    if (options.key_bias.defined()) options.key_bias = shaped(options.key_bias, key_, false).to(device);
    const auto placed = [&](const at::Tensor& x, const Side& s) {
      return shaped(x, s, true).to(device, type);
    };
    const at::Tensor d_o = placed(d_o_, query_);
    std::vector<at::Tensor> x{placed(q_, query_), placed(k_, key_), placed(v_, key_)};
    Result r;
    if (views == Views::kShared && self_attention_) {
      const int64_t dimension = padded() ? 2 : 1;
      const at::Tensor qkv = at::stack(x, dimension).requires_grad_();
      r.o = padded() ? ops::attention_padded_qkv(qkv, lengths(query_, device), options)
                     : ops::attention_qkv(qkv, begins(query_, device), query_.longest, options);
      r.o.backward(d_o);
      r.d_q = qkv.grad().select(dimension, 0), r.d_k = qkv.grad().select(dimension, 1);
      r.d_v = qkv.grad().select(dimension, 2);
    } else {
      for (size_t i = 0; i < 3; ++i) x[i] = viewed(x[i], views).requires_grad_();
      r.o = padded() ? ops::attention_padded(x[0], x[1], x[2], lengths(query_, device), lengths(key_, device),
                                             options)
                     : ops::attention_cross(x[0], x[1], x[2], begins(query_, device), begins(key_, device),
                                            query_.longest, key_.longest, options);
      r.o.backward(d_o);
      r.d_q = x[0].grad(), r.d_k = x[1].grad(), r.d_v = x[2].grad();
    }
    if (options.cell_bias.defined()) r.d_cell_bias = options.cell_bias.grad();
    return r;
  }

  /// Whether outputs and gradients of all padding are zero, bit for bit (or -0).
  [[nodiscard]] bool padding_is_zero(const Result& r) const {
    bool zero = true;
    const auto look = [&](const at::Tensor& x, const Side& s) {
      const std::vector<double> values = flat(x);
      const auto row = static_cast<size_t>(kHeads * width_);
      for_padding(s, [&](int64_t token) {
        for (size_t i = 0; i < row; ++i) zero = zero && values[static_cast<size_t>(token) * row + i] == 0.0;
      });
    };
    look(r.o, query_), look(r.d_q, query_), look(r.d_k, key_), look(r.d_v, key_);
    return zero;
  }

  at::Tensor cell_bias, key_bias;  // [B], [T_k] fp32

 private:
  static constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

  struct Side {
    std::vector<int32_t> lengths, begins{0};
    int64_t padded = -1;  // S, or -1: packed
    int64_t total = 0, longest = 0;
  };

  [[nodiscard]] int64_t num_cells() const { return static_cast<int64_t>(case_.query_lengths.size()); }
  static Side side(const std::vector<int32_t>& lengths, int64_t padding) {
    Side s{.lengths = lengths};
    for (const int32_t length : lengths) {
      s.begins.push_back(s.begins.back() + length);
      s.longest = std::max<int64_t>(s.longest, length);
    }
    if (padding >= 0) s.padded = s.longest + padding;
    s.total = padding >= 0 ? s.padded * static_cast<int64_t>(lengths.size()) : s.begins.back();
    return s;
  }
  template <class Body>
  static void for_padding(const Side& s, Body body) {
    if (s.padded < 0) return;
    for (size_t b = 0; b < s.lengths.size(); ++b)
      for (int64_t i = s.lengths[b]; i < s.padded; ++i) body(static_cast<int64_t>(b) * s.padded + i);
  }
  /// Random, rounded to bf16 so that every type sees the same numbers; NaN in padding.
  [[nodiscard]] at::Tensor tokens(const Side& s) const {
    at::Tensor x = at::randn({s.total, kHeads, width_}).to(at::kBFloat16).to(at::kDouble);
    for_padding(s, [&](int64_t token) { x.narrow(0, token, 1).fill_(kNaN); });
    return x;
  }
  /// As the caller of lib/ops passes it: [T, H, K] or [B, S, H, K]; the key bias [T] or [B, S].
  [[nodiscard]] at::Tensor shaped(const at::Tensor& x, const Side& s, bool has_heads) const {
    if (s.padded < 0) return x;
    return has_heads ? x.view({num_cells(), s.padded, kHeads, width_}) : x.view({num_cells(), s.padded});
  }
  /// The same values in memory that others share.
  static at::Tensor viewed(const at::Tensor& x, Views views) {
    if (views == Views::kSeparate) return x.clone();
    if (views == Views::kShared) {  // beside another tensor, as k and v of one projection are
      const int64_t dimension = x.dim() - 2;
      return at::stack({x, x}, dimension).select(dimension, 1);
    }
    at::Tensor room = at::full({x.size(0), x.size(1) + 2, x.size(2), x.size(3)}, kNaN, x.options());
    at::Tensor view = room.narrow(1, 1, x.size(1));
    view.copy_(x);
    return view;
  }
  static at::Tensor lengths(const Side& s, at::Device device) {
    return at::tensor(s.lengths, at::kInt).to(device);
  }
  static at::Tensor begins(const Side& s, at::Device device) {
    return at::tensor(s.begins, at::kInt).to(device);
  }
  static kernels::Ragged ragged(const Side& s) {
    return {.cu_seqlens = s.padded <= 0 ? s.begins.data() : nullptr,  // S = 0: a pack of nothing
            .lengths = s.padded <= 0 ? nullptr : s.lengths.data(),
            .padded_length = std::max<int64_t>(s.padded, 0),
            .total_tokens = s.total,
            .max_length = s.longest};
  }

  LayoutCase case_;
  int64_t width_;
  bool self_attention_ = false;
  Side query_, key_;
  at::Tensor q_, k_, v_, d_o_;  // fp64 [tokens, H, K]
};

/// Every way in which this layout's operands can lie in memory.
inline std::vector<Views> views_of(const Layout& layout) {
  if (layout.padded()) return {Views::kSeparate, Views::kShared, Views::kCut};
  return {Views::kSeparate, Views::kShared};
}

}  // namespace scrna::test
