// Products and eigenvectors of dense fp64 matrices, by LibTorch (MKL, all threads). The metrics see plain pointers: no
// other file of theirs includes LibTorch's headers, which compile slowly. All matrices are row by row.
#pragma once

#include <cstdint>
#include <vector>

namespace scrna::eval {

/// out [n, m] = a [n, k] b [m, k]^T.
void product_nt(const double* a, const double* b, double* out, int64_t n, int64_t m, int64_t k);
/// out [n, m] = a [k, n]^T b [k, m].
void product_tn(const double* a, const double* b, double* out, int64_t n, int64_t m, int64_t k);
/// out [n, m] = a [n, k] b [k, m].
void product_nn(const double* a, const double* b, double* out, int64_t n, int64_t m, int64_t k);

/// Threads of all products and of parallel.h, from now on.
void use_threads(int num_threads);

struct Eigen {
  std::vector<double> values;   // [n] descending
  std::vector<double> vectors;  // [n, n] row i belongs to values[i]
};
/// Of a symmetric matrix [n, n]; throws NumericError when it is not finite.
Eigen symmetric_eigen(const std::vector<double>& matrix, int64_t n);

}  // namespace scrna::eval
