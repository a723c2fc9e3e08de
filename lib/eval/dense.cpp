#include "lib/eval/dense.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"

namespace scrna::eval {
namespace {

at::Tensor matrix(const double* values, int64_t rows, int64_t columns) {
  return at::from_blob(const_cast<double*>(values), {rows, columns}, at::TensorOptions().dtype(at::kDouble));
}

void multiply(const at::Tensor& a, const at::Tensor& b, double* out) {
  at::Tensor result = matrix(out, a.size(0), b.size(1));
  at::mm_out(result, a, b);
}

}  // namespace

void product_nt(const double* a, const double* b, double* out, int64_t n, int64_t m, int64_t k) {
  multiply(matrix(a, n, k), matrix(b, m, k).t(), out);
}

void product_tn(const double* a, const double* b, double* out, int64_t n, int64_t m, int64_t k) {
  multiply(matrix(a, k, n).t(), matrix(b, k, m), out);
}

void product_nn(const double* a, const double* b, double* out, int64_t n, int64_t m, int64_t k) {
  multiply(matrix(a, n, k), matrix(b, k, m), out);
}

void use_threads(int num_threads) { at::set_num_threads(num_threads); }

Eigen symmetric_eigen(const std::vector<double>& values, int64_t n) {
  if (!std::all_of(values.begin(), values.end(), [](double value) { return std::isfinite(value); }))
    throw NumericError("eigenvectors: the matrix has entries that are not finite");
  const auto [ascending, columns] = at::linalg_eigh(matrix(values.data(), n, n));
  const at::Tensor descending = ascending.flip(0).contiguous();
  const at::Tensor rows = columns.flip(1).t().contiguous();
  Eigen out;
  out.values.assign(descending.const_data_ptr<double>(), descending.const_data_ptr<double>() + n);
  out.vectors.assign(rows.const_data_ptr<double>(), rows.const_data_ptr<double>() + n * n);
  return out;
}

}  // namespace scrna::eval
