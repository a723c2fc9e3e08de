#include "lib/eval/logistic_regression.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <numeric>

#include "lib/core/error.h"
#include "lib/eval/dense.h"
#include "lib/eval/parallel.h"

namespace scrna::eval {
namespace {

using Vector = std::vector<double>;

double dot(const Vector& a, const Vector& b) { return std::inner_product(a.begin(), a.end(), b.begin(), 0.0); }

double largest_entry(const Vector& v) {
  double largest = 0;
  for (const double value : v) largest = std::max(largest, std::abs(value));
  return largest;
}

/// The mean objective and its gradient; parameters are weights [classes, width], then intercepts [classes].
class Objective {
 public:
  Objective(const CellMatrix& matrix, std::span<const int32_t> codes, int32_t num_classes, double c)
      : matrix_(matrix), codes_(codes), classes_(num_classes), penalty_(1 / (c * static_cast<double>(matrix.cells))),
        scores_(matrix.cells, num_classes) {}

  double operator()(const Vector& parameters, Vector& gradient) {
    const int64_t num_weights = classes_ * matrix_.width;
    const double* intercepts = parameters.data() + num_weights;
    const double n = static_cast<double>(matrix_.cells);
    product_nt(matrix_.values.data(), parameters.data(), scores_.values.data(), matrix_.cells, classes_, matrix_.width);
    Vector losses(matrix_.cells);
    parallel_for(matrix_.cells, [&](int64_t i) { losses[i] = to_residuals(scores_.row(i), intercepts, codes_[i], n); });

    gradient.assign(parameters.size(), 0);
    product_tn(scores_.values.data(), matrix_.values.data(), gradient.data(), classes_, matrix_.width, matrix_.cells);
    for (int64_t i = 0; i < matrix_.cells; ++i)
      for (int64_t k = 0; k < classes_; ++k) gradient[num_weights + k] += scores_.row(i)[k];
    double squares = 0;
    for (int64_t j = 0; j < num_weights; ++j) {
      squares += parameters[j] * parameters[j];
      gradient[j] += penalty_ * parameters[j];
    }
    return std::accumulate(losses.begin(), losses.end(), 0.0) / n + penalty_ * squares / 2;
  }

 private:
  /// Turns the scores of a cell into (probability - target) / n and returns its loss.
  double to_residuals(double* scores, const double* intercepts, int32_t code, double n) const {
    for (int64_t k = 0; k < classes_; ++k) scores[k] += intercepts[k];
    const double largest = *std::max_element(scores, scores + classes_);
    double sum = 0;
    for (int64_t k = 0; k < classes_; ++k) sum += std::exp(scores[k] - largest);
    const double log_sum = largest + std::log(sum);
    const double loss = log_sum - scores[code];
    for (int64_t k = 0; k < classes_; ++k) scores[k] = (std::exp(scores[k] - log_sum) - (k == code ? 1 : 0)) / n;
    return loss;
  }

  const CellMatrix& matrix_;
  std::span<const int32_t> codes_;
  int64_t classes_;
  double penalty_;
  CellMatrix scores_;  // [cells, classes]
};

/// The last changes of parameters and gradient, and the direction that they give (two-loop recursion).
class Memory {
 public:
  void add(Vector step, Vector change) {
    const double curvature = dot(step, change);
    if (curvature <= 1e-14 * dot(change, change)) return;  // no information
    if (pairs_.size() == 10) pairs_.pop_front();
    pairs_.push_back({std::move(step), std::move(change), curvature});
  }
  [[nodiscard]] Vector direction(const Vector& gradient) const {
    Vector q = gradient;
    Vector alphas(pairs_.size());
    for (std::size_t i = pairs_.size(); i-- > 0;) {
      alphas[i] = dot(pairs_[i].step, q) / pairs_[i].curvature;
      add_scaled(q, pairs_[i].change, -alphas[i]);
    }
    if (!pairs_.empty()) {
      const double scale = pairs_.back().curvature / dot(pairs_.back().change, pairs_.back().change);
      for (double& value : q) value *= scale;
    }
    for (std::size_t i = 0; i < pairs_.size(); ++i)
      add_scaled(q, pairs_[i].step, alphas[i] - dot(pairs_[i].change, q) / pairs_[i].curvature);
    for (double& value : q) value = -value;
    return q;
  }
  static void add_scaled(Vector& a, const Vector& b, double scale) {
    for (std::size_t j = 0; j < a.size(); ++j) a[j] += scale * b[j];
  }

 private:
  struct Pair {
    Vector step, change;
    double curvature;
  };
  std::deque<Pair> pairs_;
};

}  // namespace

LogisticRegression fit_logistic_regression(const CellMatrix& matrix, std::span<const int32_t> codes,
                                           int32_t num_classes, double c, double tolerance, int64_t max_iterations) {
  SCRNA_CHECK(matrix.cells == static_cast<int64_t>(codes.size()) && matrix.cells > 0, "{} cells, {} codes", matrix.cells,
              codes.size());
  // Columns moved to their mean, which changes the intercepts only (they have no penalty) and the condition a lot.
  const std::vector<double> mean = column_means(matrix);
  CellMatrix centred = matrix;
  for (int64_t i = 0; i < centred.cells; ++i)
    for (int64_t j = 0; j < centred.width; ++j) centred.row(i)[j] -= mean[j];
  Objective objective(centred, codes, num_classes, c);
  Vector x(num_classes * (matrix.width + 1)), gradient, next_gradient;
  double value = objective(x, gradient);
  Memory memory;
  LogisticRegression out{CellMatrix(num_classes, matrix.width), Vector(num_classes), 0, largest_entry(gradient) < tolerance};
  while (!out.has_converged && out.iterations < max_iterations) {
    ++out.iterations;
    Vector direction = memory.direction(gradient);
    const double slope = dot(direction, gradient);
    double step = out.iterations == 1 ? 1 / std::max(1.0, std::sqrt(dot(gradient, gradient))) : 1;
    double next_value = 0;
    Vector next;
    int tries = 0;
    for (; tries < 40; ++tries, step /= 2) {  // Armijo
      next = x;
      Memory::add_scaled(next, direction, step);
      next_value = objective(next, next_gradient);
      if (next_value <= value + 1e-4 * step * slope) break;
    }
    if (tries == 40) break;  // rounding: no lower value can be told apart
    Vector change = next_gradient;
    Memory::add_scaled(change, gradient, -1);
    for (double& entry : direction) entry *= step;
    memory.add(std::move(direction), std::move(change));
    x.swap(next);
    gradient.swap(next_gradient);
    value = next_value;
    out.has_converged = largest_entry(gradient) < tolerance;
  }
  const int64_t num_weights = num_classes * matrix.width;
  std::copy_n(x.begin(), num_weights, out.weights.values.begin());
  std::copy(x.begin() + num_weights, x.end(), out.intercepts.begin());
  for (int32_t k = 0; k < num_classes; ++k)
    out.intercepts[k] -= std::inner_product(mean.begin(), mean.end(), out.weights.row(k), 0.0);
  const double shift = std::accumulate(out.intercepts.begin(), out.intercepts.end(), 0.0) / num_classes;
  for (double& intercept : out.intercepts) intercept -= shift;
  return out;
}

CellMatrix class_scores(const LogisticRegression& model, const CellMatrix& matrix) {
  CellMatrix scores(matrix.cells, model.weights.cells);
  product_nt(matrix.values.data(), model.weights.values.data(), scores.values.data(), matrix.cells, scores.width,
             matrix.width);
  for (int64_t i = 0; i < scores.cells; ++i)
    for (int64_t k = 0; k < scores.width; ++k) scores.row(i)[k] += model.intercepts[k];
  return scores;
}

}  // namespace scrna::eval
