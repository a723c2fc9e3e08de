#include "lib/ops/parameters.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/segment_reduce.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "lib/core/error.h"
#include "lib/ops/kernel_choice.h"

#ifdef SCRNA_CUDA_ENABLED
#include "kernels/adamw_cuda.h"
#endif

namespace scrna::ops {
namespace {

#ifdef SCRNA_CUDA_ENABLED
static_assert(kParameterAlignment == kernels::kFlatRow);
#endif

int64_t round_up(int64_t elements) {
  return (elements + kParameterAlignment - 1) / kParameterAlignment * kParameterAlignment;
}

void check(const Parameter& parameter, const at::Device& device) {
  const at::Tensor& value = parameter.value;
  SCRNA_CHECK(value.defined(), "parameter {} has no tensor", parameter.name);
  SCRNA_CHECK(value.scalar_type() == at::kFloat, "parameter {} must be fp32", parameter.name);
  SCRNA_CHECK(value.is_contiguous(), "parameter {} must be contiguous", parameter.name);
  SCRNA_CHECK(value.is_leaf() && value.requires_grad(),
              "parameter {} must be a leaf that requires a gradient", parameter.name);
  SCRNA_CHECK(parameter.reserved_rows == 0 || (value.dim() > 0 && parameter.reserved_rows >= value.size(0)),
              "parameter {} reserves {} rows", parameter.name, parameter.reserved_rows);
  SCRNA_CHECK(value.device() == device, "parameter {} is on {}, the first one on {}", parameter.name,
              value.device().str(), device.str());
}

/// Elements of the parameter with its reserved rows.
int64_t reserved_elements(const Parameter& parameter) {
  if (parameter.reserved_rows == 0) return parameter.value.numel();
  return parameter.value.numel() / parameter.value.size(0) * parameter.reserved_rows;
}

/// [rows] fp64 of flat [rows * kParameterAlignment] fp32.
at::Tensor squares_of_rows(const at::Tensor& flat) {
  return at::linalg_vector_norm(flat.view({-1, kParameterAlignment}), 2, at::OptionalIntArrayRef({1}))
      .to(at::kDouble)
      .square_();
}

}  // namespace

ParameterSet::ParameterSet(std::vector<Parameter> parameters) : parameters_(std::move(parameters)) {
  SCRNA_CHECK(!parameters_.empty(), "a ParameterSet needs at least one parameter");
  const at::Device device = parameters_.front().value.device();
  std::unordered_set<const at::TensorImpl*> tensors;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& parameter = parameters_[i];
    check(parameter, device);
    SCRNA_CHECK(index_of_.emplace(parameter.name, i).second, "two parameters are named {}", parameter.name);
    SCRNA_CHECK(tensors.insert(parameter.value.unsafeGetTensorImpl()).second,
                "parameter {} is a tensor that is listed already under another name", parameter.name);
    if (std::find(layer_names_.begin(), layer_names_.end(), parameter.layer) == layer_names_.end())
      layer_names_.push_back(parameter.layer);
    num_elements_ += parameter.value.numel();
  }

  // Buffer order: decayed, then not decayed.
  std::vector<size_t> order;
  for (const bool decayed : {true, false})
    for (size_t i = 0; i < parameters_.size(); ++i)
      if (parameters_[i].weight_decay == decayed) order.push_back(i);

  const auto num_parameters = static_cast<int64_t>(parameters_.size());
  row_offsets_ = at::zeros({num_parameters + 1}, at::kLong);
  layer_membership_ = at::zeros({static_cast<int64_t>(layer_names_.size()), num_parameters}, at::kDouble);
  layer_of_ = at::zeros({num_parameters}, at::kInt);
  auto row_offsets = row_offsets_.accessor<int64_t, 1>();
  auto layer_of = layer_of_.accessor<int32_t, 1>();
  auto membership = layer_membership_.accessor<double, 2>();
  offsets_.resize(parameters_.size());
  int64_t end = 0;
  for (int64_t k = 0; k < num_parameters; ++k) {
    const size_t i = order[static_cast<size_t>(k)];
    const Parameter& parameter = parameters_[i];
    offsets_[i] = end;
    end += round_up(reserved_elements(parameter));
    if (parameter.weight_decay) num_decayed_ = end;
    row_offsets[k + 1] = end / kParameterAlignment;
    const auto layer =
        std::find(layer_names_.begin(), layer_names_.end(), parameter.layer) - layer_names_.begin();
    layer_of[k] = static_cast<int32_t>(layer);
    membership[layer][k] = 1.0;
  }

  const at::NoGradGuard no_grad;
  values_ = at::zeros({end}, at::TensorOptions().dtype(at::kFloat).device(device));
  gradients_ = at::zeros_like(values_);
  compute_values_ = values_;
  row_offsets_ = row_offsets_.to(device);
  layer_of_ = layer_of_.to(device);
  layer_membership_ = layer_membership_.to(device);
  for (size_t i = 0; i < parameters_.size(); ++i) slice(values_, i).copy_(parameters_[i].value);
  attach();
}

// set_data and mutable_grad change what the caller's tensors point to, so every module that holds one sees
// the buffer.
void ParameterSet::attach() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    Parameter& parameter = parameters_[i];
    parameter.value.mutable_grad().reset();
    parameter.value.set_data(slice(values_, i));
    parameter.value.mutable_grad() = slice(gradients_, i);
  }
}

const Parameter* ParameterSet::find(std::string_view name) const {
  const auto found = index_of_.find(std::string(name));
  return found == index_of_.end() ? nullptr : &parameters_[found->second];
}

at::Tensor ParameterSet::slice(const at::Tensor& flat, size_t index) const {
  SCRNA_CHECK(flat.dim() == 1 && flat.numel() == values_.numel(),
              "a flat buffer of {} elements is expected, got {}", values_.numel(), flat.numel());
  const at::Tensor& value = parameters_.at(index).value;
  return flat.narrow(0, offsets_[index], value.numel()).view(value.sizes());
}

ElementRange ParameterSet::range_of(size_t index) const {
  return {offsets_.at(index), offsets_[index] + parameters_[index].value.numel()};
}

at::Tensor ParameterSet::with_reserve(const at::Tensor& flat, size_t index) const {
  const Parameter& parameter = parameters_.at(index);
  if (parameter.reserved_rows == 0) return slice(flat, index);
  SCRNA_CHECK(flat.dim() == 1 && flat.numel() == values_.numel(),
              "a flat buffer of {} elements is expected, got {}", values_.numel(), flat.numel());
  std::vector<int64_t> sizes = parameter.value.sizes().vec();
  sizes[0] = parameter.reserved_rows;
  return flat.narrow(0, offsets_[index], reserved_elements(parameter)).view(sizes);
}

size_t ParameterSet::index_of(const at::Tensor& value) const {
  const auto found = std::find_if(parameters_.begin(), parameters_.end(),
                                  [&](const Parameter& parameter) { return parameter.value.is_same(value); });
  SCRNA_CHECK(found != parameters_.end(), "a tensor of {} elements is no parameter of this set",
              value.defined() ? value.numel() : 0);
  return static_cast<size_t>(found - parameters_.begin());
}

void ParameterSet::set_compute_type(at::ScalarType type) {
  SCRNA_CHECK(type == at::kFloat || type == at::kBFloat16, "products in {}; expected fp32 or bf16",
              c10::toString(type));
  const at::NoGradGuard no_grad;
  compute_values_ = type == at::kFloat ? values_ : values_.to(type);
}

void ParameterSet::refresh_compute_values() {
  const at::NoGradGuard no_grad;
  if (compute_type() != at::kFloat) compute_values_.copy_(values_);
}

void ParameterSet::zero_gradients() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Parameter& parameter = parameters_[i];
    const at::Tensor& gradient = parameter.value.grad();
    const int64_t bytes = offsets_[i] * static_cast<int64_t>(sizeof(float));
    const auto at_offset = [bytes](const at::Tensor& flat) {
      return static_cast<char*>(flat.data_ptr()) + bytes;
    };
    SCRNA_CHECK(parameter.value.data_ptr() == at_offset(values_), "parameter {} left the flat buffer",
                parameter.name);
    SCRNA_CHECK(gradient.defined() && gradient.data_ptr() == at_offset(gradients_),
                "the gradient of parameter {} left the flat buffer (was it reset or replaced?)",
                parameter.name);
  }
  const at::NoGradGuard no_grad;
  gradients_.zero_();
}

// The twin: norms of rows of 1,024 in fp32 (relative error about 1e-6), squared and summed in fp64: per
// parameter, then per layer.
at::Tensor ParameterSet::squared_norm_per_layer(const at::Tensor& flat, Implementation implementation) const {
  SCRNA_CHECK(flat.dim() == 1 && flat.numel() == values_.numel() && flat.scalar_type() == at::kFloat,
              "a flat fp32 buffer of {} elements is expected", values_.numel());
  const at::NoGradGuard no_grad;
  if (use_kernel(implementation, "squared_norm_per_layer", unreadable_by_kernels({flat}))) {
#ifdef SCRNA_CUDA_ENABLED
    const int64_t num_rows = flat.numel() / kernels::kFlatRow;
    const at::Tensor row_squares = at::empty({num_rows}, flat.options());
    const at::Tensor squares = at::empty({layer_membership_.size(0)}, layer_membership_.options());
    launch_on_stream(flat, "norms per layer", [&](cudaStream_t stream) {
      return kernels::layer_norms_cuda({.gradients = flat.data_ptr<float>(),
                                        .num_rows = num_rows,
                                        .row_offsets = row_offsets_.data_ptr<int64_t>(),
                                        .layer_of = layer_of_.data_ptr<int32_t>(),
                                        .num_parameters = layer_of_.numel(),
                                        .num_layers = squares.numel(),
                                        .row_squares = row_squares.data_ptr<float>(),
                                        .squares = squares.data_ptr<double>()},
                                       stream);
    });
    return squares;
#endif
  }
  return sums_per_layer(squares_of_rows(flat));
}

at::Tensor ParameterSet::squared_gradient_norm_per_layer(std::span<const ElementRange> ranges) const {
  const at::NoGradGuard no_grad;
  const at::Tensor row_squares =
      at::zeros({gradients_.numel() / kParameterAlignment}, gradients_.options().dtype(at::kDouble));
  for (const ElementRange& range : ranges) {
    SCRNA_CHECK(range.begin % kParameterAlignment == 0 && range.size() % kParameterAlignment == 0,
                "elements {} to {} are no rows of {}", range.begin, range.end, kParameterAlignment);
    row_squares.narrow(0, range.begin / kParameterAlignment, range.size() / kParameterAlignment)
        .copy_(squares_of_rows(gradients_.narrow(0, range.begin, range.size())));
  }
  return sums_per_layer(row_squares);
}

at::Tensor ParameterSet::sums_per_layer(const at::Tensor& row_squares) const {
  const at::Tensor squares = at::segment_reduce(row_squares, "sum", std::nullopt, std::nullopt, row_offsets_,
                                                0, /*unsafe=*/true, 0.0);
  return at::mv(layer_membership_, squares);
}

at::Tensor ParameterSet::squared_gradient_norm_per_layer(Implementation implementation) const {
  return squared_norm_per_layer(gradients_, implementation);
}

void ParameterSet::to(at::Device device) {
  const at::NoGradGuard no_grad;
  const at::ScalarType compute_type = this->compute_type();
  values_ = values_.to(device);
  set_compute_type(compute_type);
  gradients_ = gradients_.to(device);
  row_offsets_ = row_offsets_.to(device);
  layer_of_ = layer_of_.to(device);
  layer_membership_ = layer_membership_.to(device);
  attach();
}

}  // namespace scrna::ops
