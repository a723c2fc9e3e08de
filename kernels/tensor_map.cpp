#include "kernels/tensor_map.h"

#include <cstdint>

namespace scrna::kernels {
namespace {

constexpr int64_t kElementBytes = 2;
constexpr int64_t kAlignmentBytes = 16;
constexpr int kPanelColumns = 64;

using Encode = decltype(&cuTensorMapEncodeTiled);

Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t error =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<Encode>(function);
}

}  // namespace

bool tensor_map_possible(const TokenView& view, int64_t num_tokens, int64_t num_heads) {
  const auto aligned = [](int64_t bytes) { return bytes % kAlignmentBytes == 0; };
  const auto stride_fits = [&](int64_t stride, int64_t size) {
    return size <= 1 || (stride > 0 && aligned(stride * kElementBytes));
  };
  return aligned(reinterpret_cast<int64_t>(view.data)) && stride_fits(view.token_stride, num_tokens) &&
         stride_fits(view.head_stride, num_heads);
}

cudaError_t make_tensor_map(CUtensorMap& map, const TokenView& view, int64_t num_tokens, int64_t num_heads,
                            int64_t head_width, int box_tokens, ElementType type) {
  static const Encode encode = find_encode();
  if (encode == nullptr) return cudaErrorNotSupported;
  const auto stride_bytes = [&](int64_t stride, int64_t size) {
    return static_cast<cuuint64_t>((size > 1 ? stride : head_width) * kElementBytes);
  };
  const cuuint64_t sizes[3] = {static_cast<cuuint64_t>(head_width), static_cast<cuuint64_t>(num_tokens),
                               static_cast<cuuint64_t>(num_heads)};
  const cuuint64_t strides[2] = {stride_bytes(view.token_stride, num_tokens),
                                 stride_bytes(view.head_stride, num_heads)};
  const cuuint32_t box[3] = {kPanelColumns, static_cast<cuuint32_t>(box_tokens), 1};
  const cuuint32_t every_element[3] = {1, 1, 1};
  const CUtensorMapDataType element =
      type == ElementType::kBFloat16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  const CUresult result = encode(&map, element, 3, view.data, sizes, strides, box, every_element,
                                 CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                 CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace scrna::kernels
