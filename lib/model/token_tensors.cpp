#include "lib/model/token_tensors.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include <ATen/ops/empty.h>

namespace scrna::model {
namespace {

// A 1-d tensor of `type` with the values of a vector, on `device`. On its way to a GPU it lies in pinned
// memory, which LibTorch's allocator gives to nobody else before the copy is done; so nobody waits for it.
template <class Out, class In>
at::Tensor copy(const std::vector<In>& values, at::ScalarType type, at::Device device) {
  at::Tensor host = at::empty({static_cast<int64_t>(values.size())},
                              at::TensorOptions(type).pinned_memory(device.is_cuda()));
  std::transform(values.begin(), values.end(), host.mutable_data_ptr<Out>(),
                 [](In value) { return static_cast<Out>(value); });
  return host.to(device, /*non_blocking=*/true);
}

}  // namespace

TokenTensors to_device(const PackedMicroBatch& micro_batch, at::Device device) {
  TokenTensors result;
  result.tokens = copy<int64_t>(micro_batch.tokens, at::kLong, device);
  result.ranks = copy<int64_t>(micro_batch.ranks, at::kLong, device);
  result.cu_seqlens_host = copy<int32_t>(micro_batch.cu_seqlens, at::kInt, at::kCPU);
  result.cu_seqlens = copy<int32_t>(micro_batch.cu_seqlens, at::kInt, device);
  result.cell_ids = copy<int64_t>(micro_batch.cell_ids, at::kLong, device);
  result.masked_positions = copy<int64_t>(micro_batch.masked_positions, at::kLong, device);
  result.masked_targets = copy<int64_t>(micro_batch.masked_targets, at::kLong, device);
  result.max_cell_tokens = micro_batch.max_cell_tokens;
  return result;
}

}  // namespace scrna::model
