#include "lib/model/token_tensors.h"

#include <algorithm>
#include <cstddef>
#include <vector>

#include <ATen/ops/empty.h>

namespace scrna::model {
namespace {

// Kernels read 16 bytes at a time; LibTorch begins its own tensors at multiples of this on a GPU.
constexpr int64_t kAlignmentBytes = 512;

// Arrays that share one buffer, each as elements of type Out, whose LibTorch name is kType.
template <class Out, at::ScalarType kType, class In>
class Section {
 public:
  /// Behind `end_bytes`, which moves on.
  Section(const std::vector<In>& values, int64_t& end_bytes) : values_(values), begin_bytes_(end_bytes) {
    end_bytes += (bytes() + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
  }
  void write(const at::Tensor& host) const {
    auto* out = reinterpret_cast<Out*>(host.mutable_data_ptr<uint8_t>() + begin_bytes_);
    std::transform(values_.begin(), values_.end(), out, [](In value) { return static_cast<Out>(value); });
  }
  [[nodiscard]] at::Tensor in(const at::Tensor& buffer) const {
    return buffer.narrow(0, begin_bytes_, bytes()).view(kType);
  }

 private:
  [[nodiscard]] int64_t bytes() const { return static_cast<int64_t>(values_.size() * sizeof(Out)); }
  const std::vector<In>& values_;
  int64_t begin_bytes_;
};

using Int32s = Section<int32_t, at::kInt, int32_t>;
using Int64s = Section<int64_t, at::kLong, int32_t>;
using CellIds = Section<int64_t, at::kLong, uint64_t>;

}  // namespace

// On its way to a GPU the buffer lies in pinned memory, which LibTorch's allocator gives to nobody else
// before the copy is done; so nobody waits for it.
TokenTensors to_device(const PackedMicroBatch& micro_batch, at::Device device) {
  int64_t num_bytes = 0;
  const Int64s tokens(micro_batch.tokens, num_bytes), ranks(micro_batch.ranks, num_bytes);
  const Int32s cu_seqlens(micro_batch.cu_seqlens, num_bytes);
  const CellIds cell_ids(micro_batch.cell_ids, num_bytes);
  const Int64s masked_positions(micro_batch.masked_positions, num_bytes);
  const Int64s masked_targets(micro_batch.masked_targets, num_bytes);

  const at::Tensor host =
      at::empty({num_bytes}, at::TensorOptions(at::kByte).pinned_memory(device.is_cuda()));
  for (const Int64s* section : {&tokens, &ranks, &masked_positions, &masked_targets}) section->write(host);
  cu_seqlens.write(host);
  cell_ids.write(host);
  const at::Tensor buffer = host.to(device, /*non_blocking=*/true);
  return {
      .tokens = tokens.in(buffer),
      .ranks = ranks.in(buffer),
      .cu_seqlens = cu_seqlens.in(buffer),
      .cu_seqlens_host = cu_seqlens.in(host).clone(),  // so that the pinned memory is free for the next one
      .cell_ids = cell_ids.in(buffer),
      .masked_positions = masked_positions.in(buffer),
      .masked_targets = masked_targets.in(buffer),
      .max_cell_tokens = micro_batch.max_cell_tokens};
}

}  // namespace scrna::model
