// Cells around centres: what the tests of metrics measure.
#pragma once

#include <cmath>
#include <string>

#include "lib/core/random.h"
#include "lib/eval/cell_matrix.h"

namespace scrna::test {

struct Blobs {
  eval::CellMatrix matrix;
  eval::Labels labels;   // by centre
  eval::Labels batches;  // every other cell of a label
};

/// `labels` centres at distance `apart` along axes of their own, `per_label` cells around each with deviation about 1.
inline Blobs make_blobs(int32_t labels, int64_t per_label, double apart, uint64_t seed = 1) {
  Blobs out;
  const int64_t width = labels + 2;
  out.matrix = eval::CellMatrix(labels * per_label, width);
  const RandomStream random(seed, RandomPurpose::kSynthesize);
  for (int64_t i = 0; i < out.matrix.cells; ++i) {
    const auto label = static_cast<int32_t>(i % labels);
    for (int64_t j = 0; j < width; ++j) {
      double sum = 0;  // of four uniforms: variance 1/3
      for (int64_t k = 0; k < 4; ++k) sum += random.uniform((i * width + j) * 4 + k) - 0.5;
      out.matrix.row(i)[j] = sum * std::sqrt(3.0) + (j == label ? apart : 0);
    }
    out.labels.codes.push_back(label);
    out.batches.codes.push_back(static_cast<int32_t>((i / labels) % 2));
  }
  for (int32_t label = 0; label < labels; ++label) out.labels.names.push_back("type " + std::to_string(label));
  out.batches.names = {"first", "second"};
  return out;
}

inline eval::Labels labels_of_codes(std::vector<int32_t> codes) {
  eval::Labels labels;
  for (const int32_t code : codes)
    while (labels.count() <= code) labels.names.push_back(std::to_string(labels.count()));
  labels.codes = std::move(codes);
  return labels;
}

inline eval::CellMatrix matrix_of(int64_t width, std::vector<double> values) {
  eval::CellMatrix matrix;
  matrix.width = width;
  matrix.cells = static_cast<int64_t>(values.size()) / width;
  matrix.values = std::move(values);
  return matrix;
}

}  // namespace scrna::test
