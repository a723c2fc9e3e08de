// Token embeddings of a pack and their gradients.
//
//   e[t] = dropout(first[first_ids[t]] + second[second_ids[t]])            [T, D]
//   d_table[v] = sum over t with ids[t] = v of dropout(d_e[t])             [V, D] fp32
//
// The backward pass is deterministic. It takes the tokens in the order of their ids (a stable sort,
// LibTorch's, made by the caller), cut into pieces of 32. A warp per piece and 256 columns adds up rows in
// registers while the id stays the same, writes the runs that lie inside its piece, and leaves those that
// cross its borders as partial rows; a second kernel adds these, piece after piece. So one id that fills the
// pack (<mask>: 15 % of all tokens) is as parallel as many rare ones, and no sum depends on the order of
// blocks. The rejected alternative, atomics, costs the same traffic and gives other bits in every run.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "kernels/dropout.h"

namespace scrna::kernels {

struct Embedding {
  int64_t num_tokens = 0;                            // T
  int64_t width = 0;                                 // D, a multiple of 8
  ElementType element_type = ElementType::kFloat32;  // of e and its gradient: fp32 or bf16
  DropoutMask mask;                                  // of the sum
};

struct EmbeddingTable {
  const void* rows = nullptr;    // [num_rows, D]
  const int64_t* ids = nullptr;  // [T]; one outside [0, num_rows) makes its token NaN
  int64_t num_rows = 0;
};

struct EmbeddingForward {
  Embedding shape;
  ElementType table_type = ElementType::kFloat32;  // fp32 or bf16
  EmbeddingTable first, second;                    // second.rows null: there is one table
  void* e = nullptr;                               // [T, D]
};

struct EmbeddingBackward {
  Embedding shape;
  const void* d_e = nullptr;            // [T, D]
  const int32_t* sorted_ids = nullptr;  // [T] ascending; ids outside [0, num_rows) are left out
  const int64_t* order = nullptr;       // [T] the token at each place of sorted_ids
  int64_t num_rows = 0;
  float* d_table = nullptr;   // [num_rows, D]
  bool accumulate = false;    // adds to d_table; otherwise rows of ids that do not occur are zeroed
  float* partials = nullptr;  // embedding_workspace_bytes(shape)
};

/// Null: these kernels serve the shape; otherwise why not. Rows must begin at multiples of 16 bytes.
const char* embedding_unsupported(const Embedding& shape);
size_t embedding_workspace_bytes(const Embedding& shape);

/// Asynchronous on `stream`; no allocation, no synchronisation.
cudaError_t embedding_forward_cuda(const EmbeddingForward& call, cudaStream_t stream);
cudaError_t embedding_backward_cuda(const EmbeddingBackward& call, cudaStream_t stream);

/// Rows at ascending positions, and back.
struct RowSelection {
  int64_t num_rows = 0;                // T
  int64_t width_bytes = 0;             // of a row, a multiple of 16
  const int64_t* positions = nullptr;  // [M] strictly ascending, in [0, T)
  int64_t num_positions = 0;           // M
};

/// selected [M, width] <- rows [T, width] at the positions.
cudaError_t gather_rows_cuda(const RowSelection& call, const void* rows, void* selected, cudaStream_t stream);
/// rows [T, width] <- selected at the positions, zero bytes elsewhere: each byte is written once.
cudaError_t scatter_rows_cuda(const RowSelection& call, const void* selected, void* rows,
                              cudaStream_t stream);

}  // namespace scrna::kernels
