// Our CUDA kernels as a column of `bench attention`.
#include "kernels/attention_cuda.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include "lib/bench/attention_forms.h"
#include "lib/core/error.h"

namespace scrna::bench {
namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw DeviceError("{}: {}", what, cudaGetErrorString(status));
}

kernels::TokenView view(const at::Tensor& x_THK) {
  return {x_THK.data_ptr(), x_THK.stride(0), x_THK.stride(1)};
}

/// Operands, results and the launch parameters that point to them.
struct Launch {
  at::Tensor qkv, d_o, o, d_qkv;  // [tokens, (3,) H, K], padding included
  at::Tensor lengths, cu_seqlens, cell_bias, d_cell_bias, workspace;
  kernels::AttentionForward forward;
  kernels::AttentionBackward backward;

  Launch(const AttentionProblem& problem, const OurAttention& options);
  [[nodiscard]] kernels::AttentionShape shape(const AttentionProblem& problem,
                                              const OurAttention& options) const;
};

kernels::AttentionShape Launch::shape(const AttentionProblem& problem, const OurAttention& options) const {
  const bool padded = problem.row.padded_length > 0;
  const kernels::Ragged ragged{.cu_seqlens = padded ? nullptr : cu_seqlens.data_ptr<int32_t>(),
                               .lengths = padded ? lengths.data_ptr<int32_t>() : nullptr,
                               .padded_length = problem.row.padded_length,
                               .total_tokens = qkv.size(0),
                               .max_length = padded ? problem.row.padded_length : problem.max_length};
  return {.num_cells = problem.num_cells(),
          .num_heads = problem.row.num_heads,
          .head_width = problem.row.head_width,
          .query = ragged,
          .key = ragged,
          .element_type = qkv.scalar_type() == at::kHalf ? kernels::ElementType::kFloat16
                                                         : kernels::ElementType::kBFloat16,
          .precision = options.precision,
          .bias_kind =
              options.learnable_bias ? kernels::BiasKind::kPerCell : kernels::BiasKind::kNegativeLogLength,
          .cell_bias = options.learnable_bias ? cell_bias.data_ptr<float>() : nullptr,
          .scale = 1.0F / std::sqrt(static_cast<float>(problem.row.head_width)),
          .cuda_path = options.path};
}

Launch::Launch(const AttentionProblem& problem, const OurAttention& options) {
  const bool padded = problem.row.padded_length > 0;
  qkv = padded ? problem.padded_qkv.flatten(0, 1) : problem.qkv;
  d_o = padded ? problem.padded_d_o.flatten(0, 1) : problem.d_o;
  o = at::empty(d_o.sizes(), d_o.options());
  d_qkv = at::empty(qkv.sizes(), qkv.options());
  lengths = problem.lengths;
  cu_seqlens = problem.cu_seqlens;
  const auto floats = qkv.options().dtype(at::kFloat);
  std::vector<float> bias;
  for (const int32_t length : problem.row.lengths) bias.push_back(-std::log(static_cast<float>(length)));
  cell_bias = at::tensor(bias, at::kFloat).to(qkv.device());
  d_cell_bias = at::empty({problem.num_cells()}, floats);
  const kernels::AttentionShape the_shape = shape(problem, options);
  workspace =
      at::empty({static_cast<int64_t>(std::max(kernels::attention_forward_workspace_bytes(the_shape),
                                               kernels::attention_backward_workspace_bytes(the_shape)))},
                qkv.options().dtype(at::kByte));
  const auto part = [](const at::Tensor& x, int64_t i) { return view(x.select(1, i)); };
  forward = {.shape = the_shape, .q = part(qkv, 0), .k = part(qkv, 1), .v = part(qkv, 2), .o = view(o)};
  backward = {.shape = the_shape,
              .q = part(qkv, 0),
              .k = part(qkv, 1),
              .v = part(qkv, 2),
              .d_o = view(d_o),
              .d_q = part(d_qkv, 0),
              .d_k = part(d_qkv, 1),
              .d_v = part(d_qkv, 2),
              .d_cell_bias = options.learnable_bias ? d_cell_bias.data_ptr<float>() : nullptr,
              .deterministic = options.deterministic};
}

/// Removes padding: [B * S, H, K] to [T, H, K].
at::Tensor packed(const at::Tensor& x, const AttentionRow& row) {
  if (row.padded_length == 0) return x;
  std::vector<at::Tensor> cells;
  for (size_t b = 0; b < row.lengths.size(); ++b)
    cells.push_back(x.narrow(0, static_cast<int64_t>(b) * row.padded_length, row.lengths[b]));
  return at::cat(cells);
}

std::string missing(const AttentionRow& row) {
  int major = 0;
  int minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "compute capability");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "compute capability");
  const char* reason = kernels::attention_cuda_unsupported(
      10 * major + minor, kernels::AttentionKind::kSigmoid, kernels::ElementType::kBFloat16, row.head_width);
  return reason == nullptr ? "" : reason;
}

}  // namespace

AttentionForm our_attention(std::string key, std::string title, std::string what,
                            const OurAttention& options) {
  AttentionForm form{.key = std::move(key),
                     .title = std::move(title),
                     .kind = "sigmoid",
                     .what = std::move(what),
                     .measures_forward = !options.deterministic,  // the forward pass is the same
                     .missing = missing,
                     .prepare = {}};
  form.prepare = [options](const AttentionProblem& problem) -> AttentionPasses {
    const auto launch = std::make_shared<Launch>(problem, options);
    return {.forward =
                [launch] {
                  check(kernels::attention_forward_cuda(launch->forward, launch->workspace.data_ptr(),
                                                        c10::cuda::getCurrentCUDAStream()),
                        "our attention, forward");
                  return launch->o;
                },
            .backward =
                [launch] {
                  check(kernels::attention_backward_cuda(launch->backward, launch->workspace.data_ptr(),
                                                         c10::cuda::getCurrentCUDAStream()),
                        "our attention, backward");
                  return std::vector{launch->d_qkv.select(1, 0), launch->d_qkv.select(1, 1),
                                     launch->d_qkv.select(1, 2)};
                },
            .valid_tokens = [row = problem.row](const at::Tensor& x) { return packed(x, row); }};
  };
  return form;
}

}  // namespace scrna::bench
