#include "lib/eval/batch_mixing.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/core/error.h"
#include "lib/eval/parallel.h"

namespace scrna::eval {
namespace {

/// Weights of the distances at this beta, and their entropy.
double weigh(const double* distances, double beta, std::vector<double>& weights) {
  double sum = 0, moment = 0;
  for (std::size_t j = 0; j < weights.size(); ++j) {
    weights[j] = std::exp(-distances[j] * beta);
    sum += weights[j];
    moment += distances[j] * weights[j];
  }
  if (sum <= 0) return 0;
  for (double& weight : weights) weight /= sum;
  return std::log(sum) + beta * moment / sum;
}

/// Bisection for the beta with that entropy, to 1e-5, at most 50 steps: the reference's rule.
bool find_weights(const double* distances, double entropy, std::vector<double>& weights) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  double beta = 1, low = -kInfinity, high = kInfinity;
  double difference = weigh(distances, beta, weights) - entropy;
  for (int tries = 0; std::abs(difference) >= 1e-5 && tries < 50; ++tries) {
    if (difference > 0) {
      low = beta;
      beta = high == kInfinity ? beta * 2 : (beta + high) / 2;
    } else {
      high = beta;
      beta = low == -kInfinity ? beta / 2 : (beta + low) / 2;
    }
    difference = weigh(distances, beta, weights) - entropy;
  }
  return difference + entropy != 0;
}

/// Size of the largest strongly connected component among the cells of one label (Tarjan, without recursion).
class StrongComponents {
 public:
  StrongComponents(const Neighbours& neighbours, const Labels& labels)
      : neighbours_(neighbours), labels_(labels), order_(neighbours.cells, 0), lowest_(neighbours.cells),
        on_stack_(neighbours.cells), next_edge_(neighbours.cells), largest_(labels.names.size()) {
    for (int64_t cell = 0; cell < neighbours.cells; ++cell)
      if (order_[cell] == 0) visit(cell);
  }
  [[nodiscard]] const std::vector<int64_t>& largest() const { return largest_; }  // [labels]

 private:
  void enter(int64_t cell) {
    order_[cell] = lowest_[cell] = ++visited_;
    on_stack_[cell] = true;
    stack_.push_back(cell);
    path_.push_back(cell);
  }

  void visit(int64_t root) {
    enter(root);
    while (!path_.empty()) {
      const int64_t cell = path_.back();
      if (next_edge_[cell] < neighbours_.count) {
        const int64_t other = neighbours_.indices[cell * neighbours_.count + next_edge_[cell]++];
        if (labels_.codes[other] != labels_.codes[cell]) continue;
        if (order_[other] == 0) {
          enter(other);
        } else if (on_stack_[other]) {
          lowest_[cell] = std::min(lowest_[cell], order_[other]);
        }
        continue;
      }
      path_.pop_back();
      if (!path_.empty()) lowest_[path_.back()] = std::min(lowest_[path_.back()], lowest_[cell]);
      if (lowest_[cell] == order_[cell]) pop_component(cell);
    }
  }

  void pop_component(int64_t cell) {
    int64_t size = 0, top = -1;
    while (top != cell) {
      top = stack_.back();
      stack_.pop_back();
      on_stack_[top] = false;
      ++size;
    }
    int64_t& largest = largest_[labels_.codes[cell]];
    largest = std::max(largest, size);
  }

  const Neighbours& neighbours_;
  const Labels& labels_;
  std::vector<int64_t> order_, lowest_;
  std::vector<bool> on_stack_;
  std::vector<int64_t> next_edge_, largest_, stack_, path_;
  int64_t visited_ = 0;
};

}  // namespace

std::vector<double> local_inverse_simpson(const Neighbours& neighbours, const Labels& labels, double perplexity) {
  SCRNA_CHECK(perplexity > 1 && perplexity < static_cast<double>(neighbours.count), "perplexity {} of {} neighbours",
              perplexity, neighbours.count);
  std::vector<double> out(neighbours.cells);
  const int64_t k = neighbours.count;
  parallel_for(neighbours.cells, [&](int64_t i) {
    std::vector<double> weights(k), by_label(labels.names.size());
    if (!find_weights(neighbours.distances.data() + i * k, std::log(perplexity), weights)) {
      out[i] = std::numeric_limits<double>::quiet_NaN();
      return;
    }
    for (int64_t j = 0; j < k; ++j) by_label[labels.codes[neighbours.indices[i * k + j]]] += weights[j];
    double simpson = 0;
    for (const double part : by_label) simpson += part * part;
    out[i] = 1 / simpson;
  });
  return out;
}

double batch_lisi(const Neighbours& neighbours, const Labels& batches) {
  const double perplexity = std::floor(static_cast<double>(neighbours.count + 1) / 3);
  std::vector<double> values = local_inverse_simpson(neighbours, batches, perplexity);
  std::erase_if(values, [](double value) { return std::isnan(value); });
  if (values.empty() || batches.count() < 2) return std::numeric_limits<double>::quiet_NaN();
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  double median = *middle;
  if (values.size() % 2 == 0) median = (median + *std::max_element(values.begin(), middle)) / 2;
  return (median - 1) / (batches.count() - 1);
}

double graph_connectivity(const Neighbours& neighbours, const Labels& labels) {
  const std::vector<int64_t> largest = StrongComponents(neighbours, labels).largest(), sizes = labels.sizes();
  double sum = 0;
  for (std::size_t label = 0; label < sizes.size(); ++label)
    sum += static_cast<double>(largest[label]) / static_cast<double>(sizes[label]);
  return sum / static_cast<double>(sizes.size());
}

}  // namespace scrna::eval
