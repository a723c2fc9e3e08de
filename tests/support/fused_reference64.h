// The fp64 oracles of the fused operations of the training step: plain loops over the definitions, written
// without any code of kernels/ or LibTorch. Matrices are row by row.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace scrna::test {

using Doubles = std::vector<double>;

struct ResidualNorm64 {
  Doubles h, y, d_h, d_x, d_gamma, d_beta;
};

/// h_out = h + factor * x, y = LayerNorm(h_out); gradients for d_y and d_h. factor [T, D] is keep / (1 - p);
/// x may be empty.
inline ResidualNorm64 residual_norm_reference64(const Doubles& h, const Doubles& x, const Doubles& factor,
                                                const Doubles& gamma, const Doubles& beta, double epsilon,
                                                const Doubles& d_y, const Doubles& d_h) {
  const size_t width = gamma.size();
  const size_t rows = h.size() / width;
  const auto columns = static_cast<double>(width);
  ResidualNorm64 r{.h = h, .y = h, .d_h = h, .d_x = x, .d_gamma = Doubles(width), .d_beta = Doubles(width)};
  for (size_t row = 0; row < rows; ++row) {
    const size_t first = row * width;
    double mean = 0, variance = 0, mean_g = 0, mean_g_normal = 0;
    for (size_t i = first; i < first + width; ++i) {
      if (!x.empty()) r.h[i] += factor[i] * x[i];
      mean += r.h[i] / columns;
    }
    for (size_t i = first; i < first + width; ++i) variance += (r.h[i] - mean) * (r.h[i] - mean) / columns;
    const double rstd = 1.0 / std::sqrt(variance + epsilon);
    for (size_t c = 0; c < width; ++c) {
      const size_t i = first + c;
      const double normal = (r.h[i] - mean) * rstd;
      r.y[i] = normal * gamma[c] + beta[c];
      r.d_gamma[c] += d_y[i] * normal;
      r.d_beta[c] += d_y[i];
      mean_g += d_y[i] * gamma[c] / columns;
      mean_g_normal += d_y[i] * gamma[c] * normal / columns;
    }
    for (size_t c = 0; c < width; ++c) {
      const size_t i = first + c;
      const double normal = (r.h[i] - mean) * rstd;
      r.d_h[i] = d_h[i] + rstd * (d_y[i] * gamma[c] - mean_g - normal * mean_g_normal);
      if (!x.empty()) r.d_x[i] = factor[i] * r.d_h[i];
    }
  }
  return r;
}

struct BiasGelu64 {
  Doubles y, d_z, d_bias;
};

inline BiasGelu64 bias_gelu_reference64(const Doubles& z, const Doubles& bias, const Doubles& d_y) {
  const size_t width = bias.size();
  BiasGelu64 r{.y = z, .d_z = z, .d_bias = Doubles(width)};
  for (size_t i = 0; i < z.size(); ++i) {
    const double v = z[i] + bias[i % width];
    const double distribution = 0.5 * std::erfc(-v / std::sqrt(2.0));
    const double density = std::exp(-0.5 * v * v) / std::sqrt(2.0 * M_PI);
    r.y[i] = v * distribution;
    r.d_z[i] = d_y[i] * (distribution + v * density);
    r.d_bias[i % width] += r.d_z[i];
  }
  return r;
}

struct Linear64 {
  Doubles y, d_x, d_weight, d_bias;
};

/// y = x weight^T + bias, and the gradients for d_y.
inline Linear64 linear_reference64(const Doubles& x, const Doubles& weight, const Doubles& bias,
                                   const Doubles& d_y) {
  const size_t out = bias.size(), in = weight.size() / out, rows = x.size() / in;
  Linear64 r{.y = d_y, .d_x = Doubles(x.size()), .d_weight = Doubles(weight.size()), .d_bias = Doubles(out)};
  for (size_t row = 0; row < rows; ++row)
    for (size_t o = 0; o < out; ++o) {
      const double gradient = d_y[row * out + o];
      double sum = bias[o];
      for (size_t i = 0; i < in; ++i) {
        sum += x[row * in + i] * weight[o * in + i];
        r.d_x[row * in + i] += gradient * weight[o * in + i];
        r.d_weight[o * in + i] += gradient * x[row * in + i];
      }
      r.y[row * out + o] = sum;
      r.d_bias[o] += gradient;
    }
  return r;
}

struct LinearCrossEntropy64 {
  double loss = 0;
  Doubles d_hidden, d_weight, d_bias;
};

/// Sum over rows of -log softmax(hidden weight^T + bias)[target] over the first num_classes rows of weight.
inline LinearCrossEntropy64 linear_cross_entropy_reference64(const Doubles& hidden, const Doubles& weight,
                                                             const Doubles& bias,
                                                             const std::vector<int64_t>& targets,
                                                             size_t num_classes) {
  const size_t width = weight.size() / bias.size();
  LinearCrossEntropy64 r{
      .d_hidden = Doubles(hidden.size()), .d_weight = Doubles(weight.size()), .d_bias = Doubles(bias.size())};
  Doubles logits(num_classes);
  for (size_t row = 0; row < targets.size(); ++row) {
    const double* x = &hidden[row * width];
    double largest = -INFINITY, sum = 0;
    for (size_t v = 0; v < num_classes; ++v) {
      logits[v] = bias[v];
      for (size_t c = 0; c < width; ++c) logits[v] += x[c] * weight[v * width + c];
      largest = std::fmax(largest, logits[v]);
    }
    for (const double logit : logits) sum += std::exp(logit - largest);
    const double lse = largest + std::log(sum);
    const auto target = static_cast<size_t>(targets[row]);
    r.loss += lse - logits[target];
    for (size_t v = 0; v < num_classes; ++v) {
      const double d_logit = std::exp(logits[v] - lse) - (v == target ? 1.0 : 0.0);
      r.d_bias[v] += d_logit;
      for (size_t c = 0; c < width; ++c) {
        r.d_hidden[row * width + c] += d_logit * weight[v * width + c];
        r.d_weight[v * width + c] += d_logit * x[c];
      }
    }
  }
  return r;
}

/// e = factor * (first[first_ids] + second[second_ids]), and the gradients of both tables: {e, d_first,
/// d_second}.
inline std::vector<Doubles> embedding_reference64(const Doubles& first, const std::vector<int64_t>& first_ids,
                                                  const Doubles& second,
                                                  const std::vector<int64_t>& second_ids,
                                                  const Doubles& factor, const Doubles& d_e) {
  std::vector<Doubles> r{Doubles(d_e.size()), Doubles(first.size()), Doubles(second.size())};
  const size_t width = first_ids.empty() ? 0 : d_e.size() / first_ids.size();
  for (size_t token = 0; token < first_ids.size(); ++token)
    for (size_t c = 0; c < width; ++c) {
      const size_t i = token * width + c;
      const size_t one = static_cast<size_t>(first_ids[token]) * width + c;
      const size_t two = static_cast<size_t>(second_ids[token]) * width + c;
      r[0][i] = factor[i] * (first[one] + second[two]);
      r[1][one] += factor[i] * d_e[i];
      r[2][two] += factor[i] * d_e[i];
    }
  return r;
}

}  // namespace scrna::test
