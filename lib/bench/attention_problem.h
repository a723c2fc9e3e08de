// The operands of one row of `bench attention`, and what a form of attention (a column) is: something that
// computes the row forward and backward. All forms of a row read the same random numbers, as views of one
// fused projection.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "lib/bench/attention_rows.h"

namespace scrna::bench {

struct AttentionProblem {
  AttentionProblem(AttentionRow given, const at::Device& device, at::ScalarType type);

  AttentionRow row;
  int64_t max_length = 0;
  at::Tensor qkv;         // [T, 3, H, K], standard normal
  at::Tensor d_o;         // [T, H, K]
  at::Tensor cu_seqlens;  // [B+1] int32
  /// The same tokens padded to S, rows with padded_length > 0 only.
  at::Tensor padded_qkv;  // [B, S, 3, H, K]
  at::Tensor padded_d_o;  // [B, S, H, K]
  at::Tensor lengths;     // [B] int32

  /// q, k or v (0, 1, 2): [T, H, K].
  [[nodiscard]] at::Tensor part(int64_t i) const { return qkv.select(1, i); }
  [[nodiscard]] int64_t num_cells() const { return static_cast<int64_t>(row.lengths.size()); }
};

/// A form ready to run on one problem. Results are [T, H, K] (of padded problems: the valid tokens), for the
/// check that forms of one kind agree; a timed call ignores them.
struct AttentionPasses {
  std::function<at::Tensor()> forward;                // O
  std::function<std::vector<at::Tensor>()> backward;  // dQ, dK, dV
  std::function<at::Tensor(const at::Tensor&)> valid_tokens = [](const at::Tensor& x) { return x; };
};

struct AttentionForm {
  std::string key;    // in JSON
  std::string title;  // of the column
  std::string kind;   // "sigmoid" or "softmax"
  std::string what;   // for the legend
  bool measures_forward = true;
  /// Why this form cannot compute the row; empty: it can. Null: any row.
  std::function<std::string(const AttentionRow&)> missing;
  std::function<AttentionPasses(const AttentionProblem&)> prepare;
};

}  // namespace scrna::bench
