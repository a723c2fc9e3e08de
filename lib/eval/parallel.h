// A loop over all threads, those that LibTorch's products use (OpenMP; one pool, so that the two do not fight for the
// cores). Files that include this are compiled with -fopenmp (CMakeLists.txt). Each index writes what is its own, so
// results do not depend on the number of threads.
#pragma once

#include <cstdint>

namespace scrna::eval {

/// body(i) for i in [0, count), in any order; body must not throw.
template <class Body>
void parallel_for(int64_t count, const Body& body) {
#ifndef _OPENMP
#error "compile this file with -fopenmp"
#endif
#pragma omp parallel for schedule(dynamic)
  for (int64_t i = 0; i < count; ++i) body(i);
}

}  // namespace scrna::eval
