#include "lib/ops/attention_kernel.h"

#include <map>
#include <vector>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "kernels/attention_cpu.h"
#include "lib/core/error.h"

#ifdef SCRNA_CUDA_ENABLED
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/attention_cuda.h"
#endif

namespace scrna::ops {
namespace {

using kernels::AttentionKind;
using kernels::ElementType;

kernels::TokenView view_of(const at::Tensor& x_THK) {
  if (!x_THK.defined()) return {};
  return {x_THK.data_ptr(), x_THK.stride(0), x_THK.stride(1)};
}

ElementType element_type(at::ScalarType type) {
  if (type == at::kBFloat16) return ElementType::kBFloat16;
  return type == at::kHalf ? ElementType::kFloat16 : ElementType::kFloat32;
}

kernels::Ragged ragged(const CellTokens& cells, const at::Tensor& tokens_THK) {
  const auto ints = [](const at::Tensor& x) { return x.defined() ? x.data_ptr<int32_t>() : nullptr; };
  return {.cu_seqlens = ints(cells.cu_seqlens),
          .lengths = ints(cells.lengths),
          .padded_length = cells.padded_length,
          .total_tokens = tokens_THK.size(0),
          .max_length = cells.max_length};
}

/// The struct that every kernel takes, for operands like q and k.
kernels::AttentionShape kernel_shape(const AttentionCall& call, const at::Tensor& q, const at::Tensor& k) {
  const auto floats = [](const at::Tensor& x) { return x.defined() ? x.data_ptr<float>() : nullptr; };
  return {.num_cells = call.queries.num_cells(),
          .num_heads = q.size(1),
          .head_width = q.size(2),
          .query = ragged(call.queries, q),
          .key = ragged(call.keys, k),
          .element_type = element_type(q.scalar_type()),
          .kind = call.options.kind,
          .precision = call.options.precision,
          .bias_kind = call.options.bias_kind,
          .scalar_bias = call.options.scalar_bias,
          .cell_bias = floats(call.options.cell_bias),
          .key_bias = floats(call.options.key_bias),
          .scale = call.scale};
}

kernels::CpuAttentionOptions cpu_options() { return {.num_threads = at::get_num_threads()}; }

/// x itself where the CPU kernel reads it in place, otherwise in fp32: fp16, which it does not know, and bf16
/// for softmax, whose backward pass needs O unrounded (d_q of the rounded O is up to 1.6 times as far off as
/// the rounding of d_q itself).
at::Tensor cpu_readable(const AttentionCall& call, const at::Tensor& x) {
  const bool in_place = x.scalar_type() == at::kBFloat16 && call.options.kind == AttentionKind::kSigmoid;
  return in_place ? x : x.to(at::kFloat);
}

void forward_cpu(const AttentionCall& call, const AttentionOperands& in, AttentionOutputs& out) {
  const at::Tensor q = cpu_readable(call, in.q), k = cpu_readable(call, in.k), v = cpu_readable(call, in.v);
  const bool same_type = q.scalar_type() == out.o.scalar_type();
  const at::Tensor o = same_type ? out.o : at::empty(q.sizes(), q.options());
  if (call.options.kind == AttentionKind::kSoftmax) {
    out.kernel_o = o;
    out.lse = at::empty({q.size(1), q.size(0)}, q.options().dtype(at::kFloat));
  }
  kernels::attention_forward_cpu({.shape = kernel_shape(call, q, k),
                                  .q = view_of(q),
                                  .k = view_of(k),
                                  .v = view_of(v),
                                  .o = view_of(o),
                                  .lse = out.lse.defined() ? out.lse.data_ptr<float>() : nullptr},
                                 cpu_options());
  if (!same_type) out.o.copy_(o);
}

void backward_cpu(const AttentionCall& call, const AttentionOperands& in, const at::Tensor& d_o,
                  const AttentionOutputs& out, const AttentionOperands& gradients,
                  const at::Tensor& d_cell_bias) {
  const at::Tensor q = cpu_readable(call, in.q), k = cpu_readable(call, in.k), v = cpu_readable(call, in.v);
  at::Tensor d_o_readable = d_o.to(q.scalar_type());
  if (d_o_readable.stride(2) != 1) d_o_readable = d_o_readable.contiguous();
  const bool same_type = q.scalar_type() == in.q.scalar_type();
  const auto like = [&](const at::Tensor& x) { return same_type ? x : at::empty(x.sizes(), q.options()); };
  const AttentionOperands written{like(gradients.q), like(gradients.k), like(gradients.v)};
  kernels::attention_backward_cpu(
      {.shape = kernel_shape(call, q, k),
       .q = view_of(q),
       .k = view_of(k),
       .v = view_of(v),
       .d_o = view_of(d_o_readable),
       .d_q = view_of(written.q),
       .d_k = view_of(written.k),
       .d_v = view_of(written.v),
       .d_cell_bias = d_cell_bias.defined() ? d_cell_bias.data_ptr<float>() : nullptr,
       .o = view_of(out.kernel_o),
       .lse = out.lse.defined() ? out.lse.data_ptr<float>() : nullptr,
       .deterministic = true},
      cpu_options());
  if (same_type) return;
  gradients.q.copy_(written.q);
  gradients.k.copy_(written.k);
  gradients.v.copy_(written.v);
}

#ifdef SCRNA_CUDA_ENABLED

void check_status(cudaError_t status, const char* pass, const at::Tensor& q) {
  if (status != cudaSuccess)
    throw DeviceError("attention {} on {}: {}", pass, q.device().str(), cudaGetErrorString(status));
}

/// x itself, or a copy where the kernels cannot read it in place.
at::Tensor readable(const at::Tensor& x_THK) {
  const bool possible = x_THK.stride(2) == 1 &&
                        kernels::attention_cuda_view_possible(view_of(x_THK), x_THK.size(0), x_THK.size(1));
  return possible ? x_THK : x_THK.clone(at::MemoryFormat::Contiguous);
}

at::Tensor workspace(size_t bytes, const at::Tensor& like) {
  return at::empty({static_cast<int64_t>(bytes)}, like.options().dtype(at::kByte));
}

void forward_cuda(const AttentionCall& call, const AttentionOperands& in, const AttentionOutputs& out) {
  const c10::cuda::CUDAGuard on_device(in.q.device());
  const at::Tensor q = readable(in.q), k = readable(in.k), v = readable(in.v);
  const kernels::AttentionShape shape = kernel_shape(call, q, k);
  const at::Tensor scratch = workspace(kernels::attention_forward_workspace_bytes(shape), q);
  check_status(kernels::attention_forward_cuda({.shape = shape,
                                                .q = view_of(q),
                                                .k = view_of(k),
                                                .v = view_of(v),
                                                .o = view_of(out.o),
                                                .lse = nullptr},
                                               scratch.data_ptr(), c10::cuda::getCurrentCUDAStream()),
               "forward", q);
}

void backward_cuda(const AttentionCall& call, const AttentionOperands& in, const at::Tensor& d_o,
                   const AttentionOperands& gradients, const at::Tensor& d_cell_bias) {
  const c10::cuda::CUDAGuard on_device(in.q.device());
  const at::Tensor q = readable(in.q), k = readable(in.k), v = readable(in.v);
  const at::Tensor d_o_readable = readable(d_o.to(q.scalar_type()));
  const kernels::AttentionShape shape = kernel_shape(call, q, k);
  const at::Tensor scratch = workspace(kernels::attention_backward_workspace_bytes(shape), q);
  const bool deterministic = call.options.deterministic || at::globalContext().deterministicAlgorithms();
  check_status(kernels::attention_backward_cuda(
                   {.shape = shape,
                    .q = view_of(q),
                    .k = view_of(k),
                    .v = view_of(v),
                    .d_o = view_of(d_o_readable),
                    .d_q = view_of(gradients.q),
                    .d_k = view_of(gradients.k),
                    .d_v = view_of(gradients.v),
                    .d_cell_bias = d_cell_bias.defined() ? d_cell_bias.data_ptr<float>() : nullptr,
                    .o = {},
                    .lse = nullptr,
                    .deterministic = deterministic},
                   scratch.data_ptr(), c10::cuda::getCurrentCUDAStream()),
               "backward", q);
}

#endif

}  // namespace

int compute_capability(const at::Device& device) {
#ifdef SCRNA_CUDA_ENABLED
  if (device.is_cuda()) {
    int major = 0;
    int minor = 0;
    const int index = device.has_index() ? device.index() : c10::cuda::current_device();
    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index) != cudaSuccess)
      throw DeviceError("attention: cannot read the compute capability of {}", device.str());
    return 10 * major + minor;
  }
#else
  static_cast<void>(device);
#endif
  return 0;
}

std::string attention_kernel_missing(const at::Device& device, at::ScalarType type, int64_t head_width,
                                     AttentionKind kind) {
  if (type == at::kDouble) return "no attention kernel takes fp64";
  if (device.is_cpu())
    return head_width <= kernels::kMaxCpuHeadWidth
               ? std::string()
               : fmt::format("the CPU kernel takes head widths up to {}, not {}", kernels::kMaxCpuHeadWidth,
                             head_width);
#ifdef SCRNA_CUDA_ENABLED
  if (device.is_cuda()) {
    const char* reason =
        kernels::attention_cuda_unsupported(compute_capability(device), kind, element_type(type), head_width);
    return reason == nullptr ? std::string()
                             : fmt::format("{} (head width {} was given)", reason, head_width);
  }
#else
  static_cast<void>(kind);
#endif
  return fmt::format("no attention kernel for {} is built into this program", device.str());
}

std::string attention_kernel_table(const at::Device& device, AttentionKind kind) {
  if (device.is_cpu())
    return fmt::format("fp32, bf16 and fp16 with head widths 1 to {}", kernels::kMaxCpuHeadWidth);
  // Asked width by width, so that this sentence cannot disagree with the kernels.
  std::map<std::vector<int64_t>, std::vector<std::string>> types_by_widths;
  for (const auto& [type, name] :
       {std::pair(at::kFloat, "fp32"), std::pair(at::kBFloat16, "bf16"), std::pair(at::kHalf, "fp16")}) {
    std::vector<int64_t> widths;
    for (int64_t width = 8; width <= kernels::kMaxCpuHeadWidth; width += 8)
      if (attention_kernel_missing(device, type, width, kind).empty()) widths.push_back(width);
    if (!widths.empty()) types_by_widths[widths].emplace_back(name);
  }
  std::vector<std::string> table;
  for (const auto& [widths, types] : types_by_widths)
    table.push_back(
        fmt::format("{} with head widths {}", fmt::join(types, " and "), fmt::join(widths, ", ")));
  return fmt::format("{}", fmt::join(table, "; "));
}

std::string attention_kernel_name(const at::Device& device, [[maybe_unused]] int64_t head_width) {
  if (device.is_cpu())
    return fmt::format("own CPU kernel ({}, {} threads)", kernels::cpu_vectors_name(), at::get_num_threads());
#ifdef SCRNA_CUDA_ENABLED
  const int capability = compute_capability(device);
  const bool is_hopper = kernels::attention_cuda_path(capability, head_width) == kernels::CudaPath::kFastest;
  return fmt::format("own {} CUDA kernel, compute capability {}.{}", is_hopper ? "Hopper" : "portable",
                     capability / 10, capability % 10);
#else
  return "no kernel";
#endif
}

void attention_kernel_forward(const AttentionCall& call, const AttentionOperands& in, AttentionOutputs& out) {
#ifdef SCRNA_CUDA_ENABLED
  if (in.q.is_cuda()) {
    forward_cuda(call, in, out);
    return;
  }
#endif
  forward_cpu(call, in, out);
}

void attention_kernel_backward(const AttentionCall& call, const AttentionOperands& in, const at::Tensor& d_o,
                               const AttentionOutputs& out, const AttentionOperands& gradients,
                               const at::Tensor& d_cell_bias) {
#ifdef SCRNA_CUDA_ENABLED
  if (in.q.is_cuda()) {
    backward_cuda(call, in, d_o, gradients, d_cell_bias);
    return;
  }
#endif
  backward_cpu(call, in, d_o, out, gradients, d_cell_bias);
}

}  // namespace scrna::ops
