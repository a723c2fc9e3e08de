// Forward: one warp per token, its ids at the same address in all lanes, an octet per lane and step. Bytes
// moved: T D (two reads, mostly from the L2 cache, and one write). Backward: see embedding_cuda.h; bytes
// moved: T D read, the touched rows written, and 16 D for each piece of 32 tokens.
#include "kernels/device/dropout_mask.h"
#include "kernels/embedding_cuda.h"

namespace scrna::kernels {
namespace {

using device::kOctet;
using device::Octet;

constexpr int kWarps = 8;
constexpr int kPiece = 32;         // tokens
constexpr int kSlabColumns = 256;  // of one warp
constexpr int kRowsInFlight = 4;

int64_t num_pieces(int64_t tokens) { return (tokens + kPiece - 1) / kPiece; }
int64_t num_slabs(int64_t width) { return (width + kSlabColumns - 1) / kSlabColumns; }
unsigned blocks_of(int64_t warps) { return static_cast<unsigned>((warps + kWarps - 1) / kWarps); }

/// values += row `id` of the table, from `octet` on; NaN for an id outside it.
template <class Element>
__device__ __forceinline__ void add_row(const EmbeddingTable& table, int64_t id, int64_t width, int octet,
                                        float (&values)[kOctet]) {
  float row[kOctet];
  if (id >= 0 && id < table.num_rows) {
    device::load_octet(static_cast<const Element*>(table.rows) + id * width + octet * kOctet, row);
  } else {
#pragma unroll
    for (int i = 0; i < kOctet; ++i) row[i] = NAN;
  }
#pragma unroll
  for (int i = 0; i < kOctet; ++i) values[i] += row[i];
}

template <class Element, class TableElement>
__global__ void __launch_bounds__(kWarps * 32) forward_kernel(const __grid_constant__ EmbeddingForward call) {
  const int64_t token = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (token >= call.shape.num_tokens) return;
  const int64_t width = call.shape.width;
  const int num_octets = static_cast<int>(width / kOctet);
  const int64_t first = call.first.ids[token];
  const int64_t second = call.second.rows == nullptr ? 0 : call.second.ids[token];
  const device::TokenMask mask(call.shape.mask, token);
  auto* e = static_cast<Element*>(call.e) + token * width;
#pragma unroll 3
  for (int octet = threadIdx.x % 32; octet < num_octets; octet += 32) {
    float values[kOctet] = {};
    add_row<TableElement>(call.first, first, width, octet, values);
    if (call.second.rows != nullptr) add_row<TableElement>(call.second, second, width, octet, values);
    mask.apply(octet, values);
    device::store_octet(e + octet * kOctet, values);
  }
}

/// A warp's piece of the sorted tokens and its columns.
struct Piece {
  int64_t index, begin, end, column;

  __device__ __forceinline__ Piece(int64_t warp, int64_t pieces, int64_t tokens)
      : index(warp % pieces),
        begin(index * kPiece),
        end(min(begin + kPiece, tokens)),
        column(warp / pieces * kSlabColumns + threadIdx.x % 32 * kOctet) {}
};

__device__ __forceinline__ void write_row(const EmbeddingBackward& call, int64_t id, int64_t column,
                                          float (&sum)[kOctet]) {
  if (id < 0 || id >= call.num_rows || column >= call.shape.width) return;
  float* const out = call.d_table + id * call.shape.width + column;
  if (call.accumulate) {
    float before[kOctet];
    device::load_octet(out, before);
#pragma unroll
    for (int i = 0; i < kOctet; ++i) sum[i] += before[i];
  }
  device::store_octet(out, sum);
}

/// Partial rows of a piece: 0, of the run that goes on from the piece before; 1, of one that begins here and
/// goes on.
__device__ __forceinline__ float* partial_row(const EmbeddingBackward& call, int64_t piece, int which) {
  return call.partials + (2 * piece + which) * call.shape.width;
}

template <class Element>
__global__ void __launch_bounds__(kWarps * 32) pieces_kernel(const __grid_constant__ EmbeddingBackward call) {
  const int64_t tokens = call.shape.num_tokens;
  const int64_t pieces = (tokens + kPiece - 1) / kPiece;
  const int64_t warp = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const Piece piece(warp, pieces, tokens);
  if (piece.column - threadIdx.x % 32 * kOctet >= call.shape.width) return;
  const bool has_columns = piece.column < call.shape.width;
  const int count = static_cast<int>(piece.end - piece.begin);
  // Lane i knows the i-th token of the piece.
  const int64_t place = min(piece.begin + threadIdx.x % 32, tokens - 1);
  const int lane_id = call.sorted_ids[place];
  const int64_t lane_token = call.order[place];
  const device::TokenMask lane_mask(call.shape.mask, lane_token);
  const int before = piece.begin > 0 ? call.sorted_ids[piece.begin - 1] : -1;
  const int after = piece.end < tokens ? call.sorted_ids[piece.end] : -1;
  float sum[kOctet] = {};
  bool from_before = piece.begin > 0 && before == __shfl_sync(~0U, lane_id, 0);
  for (int first = 0; first < count; first += kRowsInFlight) {
    Octet<Element> rows[kRowsInFlight];
#pragma unroll
    for (int r = 0; r < kRowsInFlight; ++r) {
      const int64_t token = __shfl_sync(~0U, lane_token, min(first + r, count - 1));
      if (has_columns && first + r < count)
        rows[r] = Octet<Element>::load(static_cast<const Element*>(call.d_e) + token * call.shape.width +
                                       piece.column);
    }
#pragma unroll
    for (int r = 0; r < kRowsInFlight; ++r) {
      const int i = first + r;
      if (i >= count) break;
      const int id = __shfl_sync(~0U, lane_id, i);
      const int next = i + 1 < count ? __shfl_sync(~0U, lane_id, min(i + 1, count - 1)) : after;
      const device::TokenMask mask = lane_mask.of_lane(i);
      if (has_columns) {
        float values[kOctet];
        rows[r].unpack_to(values);
        mask.apply(static_cast<int>(piece.column / kOctet), values);
#pragma unroll
        for (int j = 0; j < kOctet; ++j) sum[j] += values[j];
      }
      const bool last_of_pack = piece.begin + i + 1 == tokens;
      const bool goes_on = !last_of_pack && next == id;
      if (goes_on && i + 1 < count) continue;
      if (has_columns) {
        if (from_before || goes_on)
          device::store_octet(partial_row(call, piece.index, from_before ? 0 : 1) + piece.column, sum);
        else
          write_row(call, id, piece.column, sum);
      }
      from_before = false;
#pragma unroll
      for (int j = 0; j < kOctet; ++j) sum[j] = 0;
    }
  }
}

/// For each run that begins in a piece and goes on: the first partial row and those of the pieces after it.
__global__ void __launch_bounds__(kWarps * 32) runs_kernel(const __grid_constant__ EmbeddingBackward call) {
  const int64_t tokens = call.shape.num_tokens;
  const int64_t pieces = (tokens + kPiece - 1) / kPiece;
  const int64_t warp = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  const Piece piece(warp, pieces, tokens);
  if (piece.column >= call.shape.width || piece.end == tokens) return;
  const int id = call.sorted_ids[piece.end - 1];
  const bool begins_here = piece.begin == 0 || call.sorted_ids[piece.begin - 1] != id;
  if (!begins_here || call.sorted_ids[piece.end] != id) return;
  int64_t low = piece.end;  // of the run; it ends at `high` or before
  int64_t high = tokens;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (call.sorted_ids[middle] == id ? low : high) = middle;
  }
  const int64_t last_piece = low / kPiece;
  float sum[kOctet];
  device::load_octet(partial_row(call, piece.index, 1) + piece.column, sum);
#pragma unroll 4
  for (int64_t other = piece.index + 1; other <= last_piece; ++other) {
    float values[kOctet];
    device::load_octet(partial_row(call, other, 0) + piece.column, values);
#pragma unroll
    for (int j = 0; j < kOctet; ++j) sum[j] += values[j];
  }
  write_row(call, id, piece.column, sum);
}

__global__ void __launch_bounds__(kWarps * 32)
    gather_kernel(RowSelection call, const uint4* rows, uint4* selected) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= call.num_positions) return;
  const int64_t pieces = call.width_bytes / 16;
  const uint4* from = rows + call.positions[row] * pieces;
  for (int64_t i = threadIdx.x % 32; i < pieces; i += 32) selected[row * pieces + i] = from[i];
}

__global__ void __launch_bounds__(kWarps * 32)
    scatter_kernel(RowSelection call, const uint4* selected, uint4* rows) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (row >= call.num_rows) return;
  int64_t low = 0;  // the first position that is not before the row
  int64_t high = call.num_positions;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (call.positions[middle] < row)
      low = middle + 1;
    else
      high = middle;
  }
  const bool chosen = low < call.num_positions && call.positions[low] == row;
  const int64_t pieces = call.width_bytes / 16;
  for (int64_t i = threadIdx.x % 32; i < pieces; i += 32)
    rows[row * pieces + i] = chosen ? selected[low * pieces + i] : make_uint4(0, 0, 0, 0);
}

template <class Element>
void launch_forward(const EmbeddingForward& call, cudaStream_t stream) {
  const unsigned blocks = blocks_of(call.shape.num_tokens);
  if (call.table_type == ElementType::kFloat32)
    forward_kernel<Element, float><<<blocks, kWarps * 32, 0, stream>>>(call);
  else
    forward_kernel<Element, __nv_bfloat16><<<blocks, kWarps * 32, 0, stream>>>(call);
}

}  // namespace

const char* embedding_unsupported(const Embedding& shape) {
  if (shape.element_type == ElementType::kFloat16) return "the kernel takes fp32 and bf16";
  if (shape.width % kOctet != 0) return "the kernel takes widths that are multiples of 8";
  return nullptr;
}

size_t embedding_workspace_bytes(const Embedding& shape) {
  return static_cast<size_t>(2 * num_pieces(shape.num_tokens) * shape.width) * sizeof(float);
}

cudaError_t embedding_forward_cuda(const EmbeddingForward& call, cudaStream_t stream) {
  if (embedding_unsupported(call.shape) != nullptr || call.table_type == ElementType::kFloat16)
    return cudaErrorInvalidValue;
  if (call.shape.num_tokens == 0) return cudaSuccess;
  if (call.shape.element_type == ElementType::kFloat32)
    launch_forward<float>(call, stream);
  else
    launch_forward<__nv_bfloat16>(call, stream);
  return cudaGetLastError();
}

cudaError_t embedding_backward_cuda(const EmbeddingBackward& call, cudaStream_t stream) {
  if (embedding_unsupported(call.shape) != nullptr) return cudaErrorInvalidValue;
  if (!call.accumulate) {
    const auto bytes = static_cast<size_t>(call.num_rows * call.shape.width) * sizeof(float);
    const cudaError_t error = cudaMemsetAsync(call.d_table, 0, bytes, stream);
    if (error != cudaSuccess) return error;
  }
  if (call.shape.num_tokens == 0) return cudaSuccess;
  const unsigned blocks = blocks_of(num_pieces(call.shape.num_tokens) * num_slabs(call.shape.width));
  if (call.shape.element_type == ElementType::kFloat32)
    pieces_kernel<float><<<blocks, kWarps * 32, 0, stream>>>(call);
  else
    pieces_kernel<__nv_bfloat16><<<blocks, kWarps * 32, 0, stream>>>(call);
  runs_kernel<<<blocks, kWarps * 32, 0, stream>>>(call);
  return cudaGetLastError();
}

cudaError_t gather_rows_cuda(const RowSelection& call, const void* rows, void* selected,
                             cudaStream_t stream) {
  if (call.width_bytes % 16 != 0) return cudaErrorInvalidValue;
  if (call.num_positions == 0) return cudaSuccess;
  gather_kernel<<<blocks_of(call.num_positions), kWarps * 32, 0, stream>>>(
      call, static_cast<const uint4*>(rows), static_cast<uint4*>(selected));
  return cudaGetLastError();
}

cudaError_t scatter_rows_cuda(const RowSelection& call, const void* selected, void* rows,
                              cudaStream_t stream) {
  if (call.width_bytes % 16 != 0) return cudaErrorInvalidValue;
  if (call.num_rows == 0) return cudaSuccess;
  scatter_kernel<<<blocks_of(call.num_rows), kWarps * 32, 0, stream>>>(
      call, static_cast<const uint4*>(selected), static_cast<uint4*>(rows));
  return cudaGetLastError();
}

}  // namespace scrna::kernels
