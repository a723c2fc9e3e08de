// The fp64 oracle of attention: plain loops over the definition, written without any code of kernels/ or
// LibTorch. All operands are contiguous [tokens, H, K] doubles in the layout (packed or padded) that the
// shape describes.
//   sigmoid: P = 1 / (1 + exp(-x)), x = scale q.k + bias + key_bias;  dS = dP P (1 - P)
//   softmax: P = exp(x - lse),      x = scale q.k + key_bias;         dS = P (dP - sum_j P dP)
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/attention.h"

namespace scrna::test {

struct CellTokens {
  int64_t begin = 0;
  int64_t length = 0;
};

inline CellTokens tokens_of(const kernels::Ragged& ragged, int64_t cell) {
  if (ragged.padded_length > 0) return {cell * ragged.padded_length, ragged.lengths[cell]};
  return {ragged.cu_seqlens[cell], ragged.cu_seqlens[cell + 1] - ragged.cu_seqlens[cell]};
}

inline double bias_of(const kernels::AttentionShape& shape, int64_t cell, int64_t num_keys) {
  switch (shape.bias_kind) {
    case kernels::BiasKind::kNegativeLogLength:
      return -std::log(static_cast<double>(num_keys));
    case kernels::BiasKind::kScalar:
      return shape.scalar_bias;
    case kernels::BiasKind::kPerCell:
      return shape.cell_bias[cell];
  }
  return 0.0;
}

struct AttentionResult64 {
  std::vector<double> o, d_q, d_k, d_v;       // [tokens, H, K]; zero in padding
  std::vector<double> lse;                    // [H, T_q], softmax; zero elsewhere
  std::vector<double> d_cell_bias;            // [B]
  std::vector<double> d_cell_bias_magnitude;  // [B] sum of |dS|: the scale of rounding errors in d_cell_bias
};

/// Outputs and gradients of one attention problem. shape's pointers are host memory. Cost: H K sum(n_q n_k)
/// * 10.
inline AttentionResult64 attention_reference64(const kernels::AttentionShape& shape,
                                               const std::vector<double>& q, const std::vector<double>& k,
                                               const std::vector<double>& v, const std::vector<double>& d_o) {
  const int64_t heads = shape.num_heads;
  const int64_t width = shape.head_width;
  const bool softmax = shape.kind == kernels::AttentionKind::kSoftmax;
  const auto cells = static_cast<size_t>(shape.num_cells);
  AttentionResult64 r{.o = std::vector<double>(q.size()),
                      .d_q = std::vector<double>(q.size()),
                      .d_k = std::vector<double>(k.size()),
                      .d_v = std::vector<double>(k.size()),
                      .lse = std::vector<double>(static_cast<size_t>(heads * shape.query.total_tokens)),
                      .d_cell_bias = std::vector<double>(cells),
                      .d_cell_bias_magnitude = std::vector<double>(cells)};
  const auto dot = [width](const double* a, const double* b) {
    double sum = 0;
    for (int64_t i = 0; i < width; ++i) sum += a[i] * b[i];
    return sum;
  };
  for (int64_t cell = 0; cell < shape.num_cells; ++cell) {
    const CellTokens queries = tokens_of(shape.query, cell);
    const CellTokens keys = tokens_of(shape.key, cell);
    if (queries.length == 0 || keys.length == 0) continue;
    const double bias = bias_of(shape, cell, keys.length);
    const auto num_keys = static_cast<size_t>(keys.length);
    std::vector<double> weight(num_keys), d_weight(num_keys);
    for (int64_t head = 0; head < heads; ++head) {
      const auto at = [&](int64_t token) { return (token * heads + head) * width; };
      for (int64_t i = queries.begin; i < queries.begin + queries.length; ++i) {
        const double* q_row = &q[static_cast<size_t>(at(i))];
        const double* d_o_row = &d_o[static_cast<size_t>(at(i))];
        double max = -INFINITY;
        for (size_t j = 0; j < num_keys; ++j) {
          const int64_t token = keys.begin + static_cast<int64_t>(j);
          weight[j] = shape.scale * dot(q_row, &k[static_cast<size_t>(at(token))]);
          if (shape.key_bias != nullptr) weight[j] += shape.key_bias[token];
          max = std::fmax(max, weight[j]);
          d_weight[j] = dot(d_o_row, &v[static_cast<size_t>(at(token))]);
        }
        double row_sum = 0;
        if (softmax) {
          double sum = 0;
          for (const double x : weight) sum += std::exp(x - max);
          const double lse = max + std::log(sum);
          r.lse[static_cast<size_t>(head * shape.query.total_tokens + i)] = lse;
          for (size_t j = 0; j < num_keys; ++j) {
            weight[j] = std::exp(weight[j] - lse);
            row_sum += weight[j] * d_weight[j];
          }
        } else {
          for (double& x : weight) x = 1.0 / (1.0 + std::exp(-(x + bias)));
        }
        for (size_t j = 0; j < num_keys; ++j) {
          const int64_t token = keys.begin + static_cast<int64_t>(j);
          const double p = weight[j];
          const double d_s = softmax ? p * (d_weight[j] - row_sum) : p * (1.0 - p) * d_weight[j];
          r.d_cell_bias[static_cast<size_t>(cell)] += softmax ? 0.0 : d_s;
          r.d_cell_bias_magnitude[static_cast<size_t>(cell)] += std::fabs(d_s);
          for (int64_t x = 0; x < width; ++x) {
            const auto qi = static_cast<size_t>(at(i) + x);
            const auto kj = static_cast<size_t>(at(token) + x);
            r.o[qi] += p * v[kj];
            r.d_v[kj] += p * d_o[qi];
            r.d_q[qi] += shape.scale * d_s * k[kj];
            r.d_k[kj] += shape.scale * d_s * q[qi];
          }
        }
      }
    }
  }
  return r;
}

/// |actual - expected| / |expected| in L2; |actual| where expected is all zero. NaN anywhere gives NaN.
template <class Actual>
double relative_l2(const Actual& actual, const std::vector<double>& expected) {
  double error = 0;
  double norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = static_cast<double>(actual[i]) - expected[i];
    error += difference * difference;
    norm += expected[i] * expected[i];
  }
  return norm > 0 ? std::sqrt(error / norm) : std::sqrt(error);
}

}  // namespace scrna::test
