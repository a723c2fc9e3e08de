// Floating-point operations of a training step, counted as the literature does: a multiply-add is two, the
// backward pass costs twice the forward pass, and only products count (no recomputation, softmax, norms,
// biases or optimizer). Attention counts what bidirectional attention over ragged cells needs, sum of squared
// lengths, never padding; the head counts masked tokens only, because only they reach it. So MFU falls when
// work is wasted and never rises with it.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "lib/model/model_config.h"

namespace scrna::train {

/// The size of a global batch as far as its cost is concerned.
struct StepLoad {
  int64_t cells = 0;
  int64_t tokens = 0;          // T: of the cells
  int64_t masked_tokens = 0;   // M
  double squared_lengths = 0;  // sum over cells of (tokens of the cell)^2
  int64_t rows = 0;            // that the model computes: tokens and, if there were any, padding

  /// Part of the computed rows that belongs to no cell.
  [[nodiscard]] double padding_share() const {
    return rows > 0 ? 1 - static_cast<double>(tokens) / static_cast<double>(rows) : 0;
  }
};

/// Elements of the matrices that every token is multiplied with: L (4 D^2 + 2 D F). 85 million for the 160M
/// encoder.
inline double matrix_parameters(const model::ModelConfig& model) {
  const auto width = static_cast<double>(model.width);
  return static_cast<double>(model.num_layers) *
         (4 * width * width + 2 * width * static_cast<double>(model.feed_forward_width));
}

/// 3 (2 P T + 4 D L sum(n^2) + 2 D V M), forward and backward. vocabulary_size: V, special tokens included.
inline double step_flop(const model::ModelConfig& model, int64_t vocabulary_size, const StepLoad& load) {
  const auto width = static_cast<double>(model.width);
  const double products = 2 * matrix_parameters(model) * static_cast<double>(load.tokens);
  const double attention = 4 * width * static_cast<double>(model.num_layers) * load.squared_lengths;
  const double head =
      2 * width * static_cast<double>(vocabulary_size) * static_cast<double>(load.masked_tokens);
  return 3 * (products + attention + head);
}

/// FLOPs of a cell's tokens squared (attention) beside those of its tokens (everything else), in step_flop.
/// mask_fraction: of tokens that are masked. 2e-4 for the 160M encoder.
inline double squared_length_weight(const model::ModelConfig& model, int64_t vocabulary_size,
                                    double mask_fraction) {
  const StepLoad tokens{.tokens = 1'000'000, .masked_tokens = std::llround(1e6 * mask_fraction)};
  const StepLoad squares{.squared_lengths = 1e6};
  return step_flop(model, vocabulary_size, squares) / step_flop(model, vocabulary_size, tokens);
}

/// Adds the cells that cu_seqlens delimits ([B+1], one micro-batch of num_rows tokens) to `load`, masked
/// tokens aside.
inline void add_cells(StepLoad& load, std::span<const int32_t> cu_seqlens, int64_t num_rows) {
  for (std::size_t cell = 0; cell + 1 < cu_seqlens.size(); ++cell) {
    const auto length = static_cast<double>(cu_seqlens[cell + 1] - cu_seqlens[cell]);
    load.squared_lengths += length * length;
  }
  load.cells += static_cast<int64_t>(cu_seqlens.size()) - 1;
  load.tokens += cu_seqlens.back() - cu_seqlens.front();
  load.rows += num_rows;
}

}  // namespace scrna::train
