// The trainable parameters of a model as one list of named tensors over one flat fp32 buffer, with all
// gradients in a second one. The modules keep their tensors; ParameterSet moves the storage under them. So
// the gradient norm, clipping, AdamW and the all-reduce each work on one or two long ranges instead of
// hundreds of small tensors, and backward adds into the flat buffer without a copy. The rejected alternative,
// a list of tensors and the _foreach_ operators, needs a gather before every all-reduce and has no fixed
// layout to checkpoint or shard.
//
// Layout: parameters with weight decay first, then those without, each group in the order given. Every
// parameter begins at a multiple of kParameterAlignment elements; the gaps are zero and stay zero under every
// elementwise optimizer.
//
// Mixed precision: products in bf16 read a flat bf16 copy of the values in the same layout, so that no step
// casts a weight. ops::adamw_update writes it together with the values; whoever changes values otherwise
// calls refresh_compute_values().
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <ATen/core/Tensor.h>

#include "lib/core/element_range.h"
#include "lib/ops/attention.h"

namespace scrna::ops {

/// In elements: 4 KiB of fp32, so that a row of this length never spans two parameters (see
/// squared_gradient_norm_per_layer) and every parameter is aligned for vector loads and TMA.
inline constexpr int64_t kParameterAlignment = 1024;

struct Parameter {
  std::string name;   // unique, for example "block.3.ffn.up.weight"; the key in checkpoints
  at::Tensor value;   // leaf, requires_grad, fp32, contiguous
  std::string layer;  // what the per-layer gradient norms are reported under, for example "block.3"
  bool weight_decay = true;
  /// The gap behind the parameter is at least so long that it may be read as a tensor of this many rows, the
  /// last of them zero (with_reserve); 0: as many as it has. For products that want a multiple of 64 rows.
  int64_t reserved_rows = 0;
};

class ParameterSet {
 public:
  /// Copies all values into the flat buffer and makes each tensor a view of it (same at::Tensor, new
  /// storage), with .grad a zeroed view of the gradient buffer. All tensors must be on one device. Throws
  /// InternalError on a duplicate name, a tensor listed twice, or a tensor that is not a contiguous fp32 leaf
  /// that requires a gradient.
  explicit ParameterSet(std::vector<Parameter> parameters);
  ParameterSet(const ParameterSet&) = delete;
  ParameterSet& operator=(const ParameterSet&) = delete;
  ParameterSet(ParameterSet&&) noexcept = default;
  ParameterSet& operator=(ParameterSet&&) noexcept = default;
  ~ParameterSet() = default;

  /// All parameters in the order given to the constructor.
  [[nodiscard]] const std::vector<Parameter>& all() const { return parameters_; }
  /// The parameter of that name, or null.
  [[nodiscard]] const Parameter* find(std::string_view name) const;
  /// [buffer elements] fp32: all values; the first num_decayed() elements are subject to weight decay.
  [[nodiscard]] const at::Tensor& values() const { return values_; }
  /// [buffer elements] fp32: all gradients, same layout as values(). Write into it in place only.
  [[nodiscard]] const at::Tensor& gradients() const { return gradients_; }
  /// Length in elements of the decayed range of the buffer, gaps included.
  [[nodiscard]] int64_t num_decayed() const { return num_decayed_; }
  /// Number of trainable numbers (without gaps): what a user calls the size of the model.
  [[nodiscard]] int64_t num_elements() const { return num_elements_; }
  /// View of parameter `index` of all() inside any buffer laid out like values() (optimizer state, an
  /// average, ...), in the shape of the parameter.
  [[nodiscard]] at::Tensor slice(const at::Tensor& flat, size_t index) const;
  /// Where parameter `index` stands in such a buffer, without the gap behind it.
  [[nodiscard]] ElementRange range_of(size_t index) const;
  /// The same with the parameter's reserved rows at its end.
  [[nodiscard]] at::Tensor with_reserve(const at::Tensor& flat, size_t index) const;
  /// Position in all() of the parameter whose value is this very tensor. Throws InternalError when there is
  /// none.
  [[nodiscard]] size_t index_of(const at::Tensor& value) const;

  /// Type of compute_values(): fp32 (at first) or bf16. Throws InternalError for another. Views of
  /// compute_values() that were taken before are worth nothing afterwards.
  void set_compute_type(at::ScalarType type);
  [[nodiscard]] at::ScalarType compute_type() const { return compute_values_.scalar_type(); }
  /// [buffer elements], laid out like values(): what products read. values() itself in fp32, otherwise a
  /// rounded copy.
  [[nodiscard]] const at::Tensor& compute_values() const { return compute_values_; }
  /// Rounds values() into compute_values(): after every change of values that adamw_update did not make
  /// (restoring a checkpoint, moving to another device). Nothing to do in fp32.
  void refresh_compute_values();

  /// Sets all gradients to zero in place. Throws InternalError when somebody replaced a parameter's .grad or
  /// storage, since its gradients would then miss the optimizer silently.
  void zero_gradients();
  /// Distinct layers in order of first appearance.
  [[nodiscard]] const std::vector<std::string>& layer_names() const { return layer_names_; }
  /// [num layers] fp64 on the device: sum of squared gradients of each layer, in the order of layer_names().
  /// Does not synchronise with the host; the sum over all layers is the square of the global norm.
  /// Deterministic. On CUDA by the kernels of kernels/adamw_cuda.h.
  [[nodiscard]] at::Tensor squared_gradient_norm_per_layer(
      Implementation implementation = Implementation::kAuto) const;
  /// The same over these ranges alone, multiples of kParameterAlignment: a rank's share of the sums. By
  /// LibTorch's operations, also on CUDA.
  [[nodiscard]] at::Tensor squared_gradient_norm_per_layer(std::span<const ElementRange> ranges) const;
  /// The same of any fp32 buffer laid out like values(): weights, an update.
  [[nodiscard]] at::Tensor squared_norm_per_layer(const at::Tensor& flat,
                                                  Implementation implementation = Implementation::kAuto) const;
  /// Moves buffers, values, their copy and gradients to `device`.
  void to(at::Device device);

 private:
  void attach();
  [[nodiscard]] at::Tensor sums_per_layer(const at::Tensor& row_squares) const;

  std::vector<Parameter> parameters_;
  std::vector<int64_t> offsets_;  // [parameters] first element in the buffer
  std::unordered_map<std::string, size_t> index_of_;
  std::vector<std::string> layer_names_;
  at::Tensor values_;
  at::Tensor gradients_;
  at::Tensor compute_values_;  // values_ itself in fp32
  at::Tensor
      row_offsets_;      // [parameters + 1] int64: first row of kParameterAlignment elements, in buffer order
  at::Tensor layer_of_;  // [parameters] int32, in buffer order
  at::Tensor layer_membership_;  // [layers, parameters] fp64 zeros and ones, parameters in buffer order
  int64_t num_decayed_ = 0;
  int64_t num_elements_ = 0;
};

}  // namespace scrna::ops
