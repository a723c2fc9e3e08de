// A HostAttention problem on the GPU in bf16 or fp16: the same layout with its gaps, guards and poison,
// element by element. The host's operands are rounded first, so that the oracle sees the same numbers.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "kernels/attention_cuda.h"
#include "tests/support/attention_cases.h"
#include "tests/support/device_memory.h"

namespace scrna::test {

/// A NaN in both types, which no kernel writes.
inline constexpr uint16_t kHalfPoison = 0x7FDE;

inline uint16_t to_half(float x, kernels::ElementType type) {
  if (std::bit_cast<uint32_t>(x) == GuardedTokens::kPoison) return kHalfPoison;
  return type == kernels::ElementType::kBFloat16 ? __bfloat16_as_ushort(__float2bfloat16_rn(x))
                                                 : __half_as_ushort(__float2half_rn(x));
}

inline float from_half(uint16_t x, kernels::ElementType type) {
  if (x == kHalfPoison) return std::bit_cast<float>(GuardedTokens::kPoison);
  return type == kernels::ElementType::kBFloat16 ? __bfloat162float(__ushort_as_bfloat16(x))
                                                 : __half2float(__ushort_as_half(x));
}

/// Rounds the operands of the problem to `type`.
inline void round_operands(HostAttention& host, kernels::ElementType type) {
  for (GuardedTokens* x : {&host.q, &host.k, &host.v, &host.d_o})
    for (float& value : x->buffer()) value = from_half(to_half(value, type), type);
}

class DeviceAttention {
 public:
  /// `host` must outlive this, with operands already rounded.
  DeviceAttention(HostAttention& host, kernels::ElementType type, kernels::SigmoidPrecision precision)
      : host_(host), type_(type), shape_(host.shape) {
    shape_.element_type = type;
    shape_.precision = precision;
    place(shape_.query);
    place(shape_.key);
    const auto floats = [&](const float* x, int64_t size) -> const float* {
      if (x == nullptr) return nullptr;
      floats_.emplace_back(std::vector<float>(x, x + size));
      return floats_.back().data();
    };
    shape_.cell_bias = floats(shape_.cell_bias, shape_.num_cells);
    shape_.key_bias = floats(shape_.key_bias, shape_.key.total_tokens);
    for (GuardedTokens* x : tokens()) buffers_.emplace_back(halves(*x));
    d_cell_bias_ = DeviceVector<float>(std::vector<float>(static_cast<size_t>(shape_.num_cells), NAN));
    using namespace kernels;
    const size_t bytes =
        std::max(attention_forward_workspace_bytes(shape_), attention_backward_workspace_bytes(shape_));
    workspace_bytes_ = (bytes + 255) / 256 * 256;
    workspace_ = DeviceVector<uint8_t>(workspace_bytes_ + kWorkspaceGuardBytes);
    workspace_.fill_bytes(kWorkspaceFill);
  }

  cudaError_t forward(cudaStream_t stream = nullptr) {
    return kernels::attention_forward_cuda(
        {.shape = shape_, .q = view(0), .k = view(1), .v = view(2), .o = view(4), .lse = nullptr},
        workspace_.data(), stream);
  }
  cudaError_t backward(bool deterministic, bool bias_gradient = true, cudaStream_t stream = nullptr) {
    return kernels::attention_backward_cuda({.shape = shape_,
                                             .q = view(0),
                                             .k = view(1),
                                             .v = view(2),
                                             .d_o = view(3),
                                             .d_q = view(5),
                                             .d_k = view(6),
                                             .d_v = view(7),
                                             .d_cell_bias = bias_gradient ? d_cell_bias_.data() : nullptr,
                                             .o = {},
                                             .lse = nullptr,
                                             .deterministic = deterministic},
                                            workspace_.data(), stream);
  }
  /// Waits, and copies outputs and gradients into the host problem.
  void download() {
    check_cuda(cudaDeviceSynchronize(), "kernel");
    const auto all = tokens();
    for (size_t i = 4; i < all.size(); ++i) {
      const std::vector<uint16_t> values = buffers_[i].values();
      for (size_t j = 0; j < values.size(); ++j) all[i]->buffer()[j] = from_half(values[j], type_);
    }
    host_.d_cell_bias = d_cell_bias_.values();
  }
  /// Outputs back to poison.
  void reset() {
    const auto all = tokens();
    for (size_t i = 4; i < all.size(); ++i) {
      std::fill(all[i]->buffer().begin(), all[i]->buffer().end(),
                std::bit_cast<float>(GuardedTokens::kPoison));
      buffers_[i].assign(std::vector<uint16_t>(buffers_[i].size(), kHalfPoison));
    }
    workspace_.fill_bytes(kWorkspaceFill);
  }
  [[nodiscard]] bool workspace_guard_untouched() const {
    const std::vector<uint8_t> all = workspace_.values();
    return std::all_of(all.begin() + static_cast<std::ptrdiff_t>(workspace_bytes_), all.end(),
                       [](uint8_t x) { return x == kWorkspaceFill; });
  }

 private:
  static constexpr size_t kWorkspaceGuardBytes = 1024;
  static constexpr int kWorkspaceFill = 0xFF;  // NaN, and impossible counters
  std::vector<GuardedTokens*> tokens() {
    return {&host_.q, &host_.k, &host_.v, &host_.d_o, &host_.o, &host_.d_q, &host_.d_k, &host_.d_v};
  }
  [[nodiscard]] std::vector<uint16_t> halves(const GuardedTokens& x) const {
    std::vector<uint16_t> result;
    result.reserve(x.buffer().size());
    for (const float value : x.buffer()) result.push_back(to_half(value, type_));
    return result;
  }
  kernels::TokenView view(size_t i) {
    kernels::TokenView x = tokens()[i]->view();
    x.data = buffers_[i].data() + GuardedTokens::kGuard;
    return x;
  }
  void place(kernels::Ragged& ragged) {
    const auto ints = [&](const int32_t* x, int64_t size) -> const int32_t* {
      if (x == nullptr) return nullptr;
      ints_.emplace_back(std::vector<int32_t>(x, x + size));
      return ints_.back().data();
    };
    ragged.cu_seqlens = ints(ragged.cu_seqlens, shape_.num_cells + 1);
    ragged.lengths = ints(ragged.lengths, shape_.num_cells);
  }

  HostAttention& host_;
  kernels::ElementType type_;
  kernels::AttentionShape shape_;
  std::vector<DeviceVector<int32_t>> ints_;
  std::vector<DeviceVector<float>> floats_;
  std::vector<DeviceVector<uint16_t>> buffers_;
  DeviceVector<float> d_cell_bias_;
  DeviceVector<uint8_t> workspace_;
  size_t workspace_bytes_ = 0;
};

}  // namespace scrna::test
