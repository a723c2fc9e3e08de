// One table of attention problems for every implementation and for correctness, gradients and exactness
// alike; and the operands of a problem in host memory, laid out to catch mistakes: tokens and heads have gaps
// between them, and every float that is no valid operand (gaps, padding, the space before and after) is a NaN
// with a bit pattern of its own. Read by mistake it poisons the result; written by mistake it is noticed.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "tests/support/reference64.h"

namespace scrna::test {

struct AttentionCase {
  std::string name;
  std::vector<int32_t> query_lengths;
  std::vector<int32_t> key_lengths;  // empty: the same as query_lengths
  int64_t heads = 2;
  int64_t width = 64;
  int64_t extra_padding = -1;  // padded layout with S = longest + extra_padding; -1: packed
  kernels::AttentionKind kind = kernels::AttentionKind::kSigmoid;
  kernels::BiasKind bias = kernels::BiasKind::kNegativeLogLength;
  bool key_bias = false;
  float score_scale = 1.0F;  // scores are this many times the usual q.k / sqrt(K)
};

/// 300 lengths up to 96, some of them zero. None from 1 to 7: the bias gradient of a cell of one token is one
/// product of K terms, whose rounding error has nothing to do with its magnitude.
inline std::vector<int32_t> three_hundred_lengths() {
  std::vector<int32_t> lengths;
  for (int32_t i = 0; i < 300; ++i) lengths.push_back(i * 37 % 97 < 8 ? 0 : i * 37 % 97);
  return lengths;
}

/// Lengths on both sides of every tile and block boundary.
inline std::vector<AttentionCase> attention_cases() {
  using kernels::AttentionKind;
  using kernels::BiasKind;
  const std::vector<int32_t> edges{0, 1, 7, 63, 64, 65, 127, 128, 129, 191, 192, 193};
  std::vector<AttentionCase> cases;
  for (const auto kind : {AttentionKind::kSigmoid, AttentionKind::kSoftmax}) {
    const std::string prefix = kind == AttentionKind::kSigmoid ? "sigmoid_" : "softmax_";
    const auto add = [&](const std::string& name, AttentionCase c) {
      c.name = prefix + name;
      c.kind = kind;
      cases.push_back(std::move(c));
    };
    add("edges", {.query_lengths = edges});
    add("edges_padded", {.query_lengths = edges, .extra_padding = 5});
    add("edges_padded_key_bias", {.query_lengths = edges, .extra_padding = 0, .key_bias = true});
    add("other_key_lengths", {.query_lengths = {5, 64, 0, 130, 1, 0}, .key_lengths = {129, 1, 9, 65, 0, 0}});
    add("other_key_lengths_padded",
        {.query_lengths = {5, 64, 0, 130, 1}, .key_lengths = {129, 1, 9, 65, 0}, .extra_padding = 3});
    add("one_long_cell", {.query_lengths = {600}, .heads = 1});
    add("many_short_cells", {.query_lengths = std::vector<int32_t>(40, 9), .heads = 1, .width = 32});
    add("300_cells", {.query_lengths = three_hundred_lengths(), .heads = 1});
    for (const int64_t width : {1, 8, 24, 32, 80, 96, 128, 256})
      add("width_" + std::to_string(width), {.query_lengths = {70, 3}, .width = width});
    for (const float scale : {4.0F, 16.0F})
      add("scores_times_" + std::to_string(static_cast<int>(scale)),
          {.query_lengths = {150, 33}, .score_scale = scale});
  }
  for (const auto bias : {BiasKind::kScalar, BiasKind::kPerCell})
    cases.push_back({.name = bias == BiasKind::kScalar ? "sigmoid_scalar_bias" : "sigmoid_cell_bias",
                     .query_lengths = {65, 0, 130, 1},
                     .bias = bias,
                     .key_bias = true});
  return cases;
}

/// [tokens, heads, width] fp32 in a larger buffer of poison.
class GuardedTokens {
 public:
  GuardedTokens(int64_t tokens, int64_t heads, int64_t width)
      : tokens_(tokens),
        heads_(heads),
        width_(width),
        head_stride_(width + 8),  // a multiple of 16 bytes for 16-bit elements too, where the width is
        token_stride_(3 * heads * head_stride_) {
    buffer_.assign(static_cast<size_t>(kGuard + tokens * token_stride_ + kGuard),
                   std::bit_cast<float>(kPoison));
  }
  [[nodiscard]] kernels::TokenView view() { return {buffer_.data() + kGuard, token_stride_, head_stride_}; }
  float& at(int64_t token, int64_t head, int64_t d) { return buffer_[index(token, head, d)]; }
  [[nodiscard]] std::vector<double> values() const {
    std::vector<double> x;
    for_each([&](size_t i) { x.push_back(static_cast<double>(buffer_[i])); });
    return x;
  }
  /// Whether everything outside [tokens, heads, width] still is poison.
  [[nodiscard]] bool guards_untouched() const {
    std::vector<bool> inside(buffer_.size());
    for_each([&](size_t i) { inside[i] = true; });
    for (size_t i = 0; i < buffer_.size(); ++i)
      if (!inside[i] && std::bit_cast<uint32_t>(buffer_[i]) != kPoison) return false;
    return true;
  }
  /// Everything, poison included.
  [[nodiscard]] const std::vector<float>& buffer() const { return buffer_; }
  [[nodiscard]] std::vector<float>& buffer() { return buffer_; }
  [[nodiscard]] std::vector<uint32_t> bits() const {
    std::vector<uint32_t> x;
    for (const float value : buffer_) x.push_back(std::bit_cast<uint32_t>(value));
    return x;
  }

  static constexpr uint32_t kPoison = 0x7FC0DEADU;
  static constexpr int64_t kGuard = 64;

 private:
  [[nodiscard]] size_t index(int64_t token, int64_t head, int64_t d) const {
    return static_cast<size_t>(kGuard + token * token_stride_ + head * head_stride_ + d);
  }
  template <class Body>
  void for_each(Body body) const {
    for (int64_t t = 0; t < tokens_; ++t)
      for (int64_t h = 0; h < heads_; ++h)
        for (int64_t d = 0; d < width_; ++d) body(index(t, h, d));
  }
  int64_t tokens_, heads_, width_, head_stride_, token_stride_;
  std::vector<float> buffer_;
};

/// A case with random operands (normal, standard deviation 1), ready to launch on the host.
class HostAttention {
 public:
  explicit HostAttention(const AttentionCase& c, uint64_t seed = 1)
      : q_lengths_(c.query_lengths),
        k_lengths_(c.key_lengths.empty() ? c.query_lengths : c.key_lengths),
        q_begin_(begins(q_lengths_)),
        k_begin_(begins(k_lengths_)),
        shape(make_shape(c)),
        q(make()),
        k(make(false)),
        v(make(false)),
        d_o(make()),
        o(make()),
        d_q(make()),
        d_k(make(false)),
        d_v(make(false)),
        lse(static_cast<size_t>(shape.num_heads * shape.query.total_tokens)),
        d_cell_bias(static_cast<size_t>(shape.num_cells)) {
    std::mt19937_64 generator(seed);
    std::normal_distribution<float> normal;
    const auto fill = [&](GuardedTokens& x, const kernels::Ragged& ragged) {
      for (int64_t cell = 0; cell < shape.num_cells; ++cell) {
        const CellTokens tokens = tokens_of(ragged, cell);
        for (int64_t t = tokens.begin; t < tokens.begin + tokens.length; ++t)
          for (int64_t h = 0; h < shape.num_heads; ++h)
            for (int64_t d = 0; d < shape.head_width; ++d) x.at(t, h, d) = normal(generator);
      }
    };
    fill(q, shape.query), fill(k, shape.key), fill(v, shape.key), fill(d_o, shape.query);
    for (auto* vector : {&cell_bias_, &key_bias_}) {
      vector->resize(static_cast<size_t>(std::max(shape.num_cells, shape.key.total_tokens)));
      for (float& x : *vector) x = normal(generator);
    }
    shape.cell_bias = cell_bias_.data();
    shape.key_bias = c.key_bias ? key_bias_.data() : nullptr;
  }
  HostAttention(const HostAttention&) = delete;
  HostAttention& operator=(const HostAttention&) = delete;

  kernels::AttentionForward forward() {
    return {.shape = shape, .q = q.view(), .k = k.view(), .v = v.view(), .o = o.view(), .lse = lse.data()};
  }
  kernels::AttentionBackward backward() {
    return {.shape = shape,
            .q = q.view(),
            .k = k.view(),
            .v = v.view(),
            .d_o = d_o.view(),
            .d_q = d_q.view(),
            .d_k = d_k.view(),
            .d_v = d_v.view(),
            .d_cell_bias = d_cell_bias.data(),
            .o = o.view(),
            .lse = lse.data()};
  }
  [[nodiscard]] AttentionResult64 oracle() const {
    return attention_reference64(shape, q.values(), k.values(), v.values(), d_o.values());
  }

 private:
  static std::vector<int32_t> begins(const std::vector<int32_t>& lengths) {
    std::vector<int32_t> x{0};
    for (const int32_t length : lengths) x.push_back(x.back() + length);
    return x;
  }
  kernels::Ragged ragged(const std::vector<int32_t>& lengths, const std::vector<int32_t>& begin,
                         int64_t extra) const {
    const int64_t longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
    if (extra < 0) return {.cu_seqlens = begin.data(), .total_tokens = begin.back(), .max_length = longest};
    const int64_t padded = longest + extra;
    return {.lengths = lengths.data(),
            .padded_length = padded,
            .total_tokens = padded * static_cast<int64_t>(lengths.size()),
            .max_length = longest};
  }
  kernels::AttentionShape make_shape(const AttentionCase& c) const {
    return {.num_cells = static_cast<int64_t>(q_lengths_.size()),
            .num_heads = c.heads,
            .head_width = c.width,
            .query = ragged(q_lengths_, q_begin_, c.extra_padding),
            .key = ragged(k_lengths_, k_begin_, c.extra_padding),
            .kind = c.kind,
            .bias_kind = c.bias,
            .scalar_bias = -1.25F,
            .scale = c.score_scale / std::sqrt(static_cast<float>(c.width))};
  }
  [[nodiscard]] GuardedTokens make(bool query = true) const {
    return {query ? shape.query.total_tokens : shape.key.total_tokens, shape.num_heads, shape.head_width};
  }
  std::vector<int32_t> q_lengths_, k_lengths_, q_begin_, k_begin_;
  std::vector<float> cell_bias_, key_bias_;

 public:
  kernels::AttentionShape shape;
  GuardedTokens q, k, v, d_o;      // inputs; poison in padding
  GuardedTokens o, d_q, d_k, d_v;  // outputs; poison until written
  std::vector<float> lse;          // [H, T_q]
  std::vector<float> d_cell_bias;  // [B]
};

}  // namespace scrna::test
