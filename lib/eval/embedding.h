// One vector per cell out of the encoder's vectors per token: what scanpy calls obsm["X_..."]. Cells go
// through in packs of whole cells, chosen by length so that packs are few and even; the rows come back in the
// order of the file. Forward passes only: no head, no dropout, nothing kept for a backward pass.
//
// What is pooled: the tokens of the cell's genes. <cls>, where the tokenizer adds it, is not among them,
// except for Pooling::kFirst, which takes it. The last layer is what the output head reads, that is after the
// final LayerNorm; earlier ones are the residual stream between blocks, as transformers' hidden_states of
// pre-LN models. Sums are fp32 and run over one cell at a time, so that the pack does not enter them; what
// the pack can change is the rounding inside matrix products (tests/eval/embedding_test.cpp states how much).
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <utility>

#include <ATen/core/Tensor.h>

#include "lib/core/micro_batch.h"
#include "lib/data/cell_tokens.h"
#include "lib/model/encoder.h"

namespace scrna::eval {

enum class Pooling {
  kMean,  // over the tokens of the cell's genes
  kMax,   // of each column over them
  kFirst  // the first token: <cls> with tokenizer.add_cls, else the gene of the first rank
};
constexpr auto enum_names(Pooling) {
  return std::array{std::pair{std::string_view("mean"), Pooling::kMean},
                    std::pair{std::string_view("max"), Pooling::kMax},
                    std::pair{std::string_view("first"), Pooling::kFirst}};
}

/// "mean", "max" or "first".
constexpr std::string_view name_of(Pooling pooling) {
  for (const auto& [name, value] : enum_names(pooling))
    if (value == pooling) return name;
  return "";
}

struct EmbeddingOptions {
  Pooling pooling = Pooling::kMean;
  int64_t num_blocks = 0;          // blocks that the tokens pass: 0 (embeddings) to L
  bool has_cls = false;            // tokenizer.add_cls
  int64_t tokens_per_pack = 8192;  // at most; a longer cell makes a pack of its own
};

/// `layer` as users say it: 0 the embeddings, N after block N, L the last; -1 the last, -2 the one before.
/// Throws ConfigError for one that the model does not have.
int64_t resolve_layer(int64_t layer, int64_t num_layers);

/// Pools a pack's hidden states [T, D] of any type into [B, D] fp32 on the same device; cu_seqlens_host
/// [B+1] int32 in host memory. The host does not wait.
at::Tensor pool_cells(const at::Tensor& hidden_TD, const at::Tensor& cu_seqlens_host,
                      const EmbeddingOptions& options);

/// These cells of the window (each with tokens) as one pack without masks; cell_ids are their rows in the file.
PackedMicroBatch pack_of(const data::TokenizedCells& cells, std::span<const int64_t> members);

/// Called between packs with the number of cells done since the call began; false: stop.
using KeepGoing = std::function<bool(int64_t cells_done)>;

/// [cells, D] fp32 on the CPU, NaN for a cell without tokens. Undefined when keep_going said to stop. Throws
/// NumericError when another row is not finite.
at::Tensor embed_cells(const model::Encoder& encoder, const data::TokenizedCells& cells,
                       const EmbeddingOptions& options, const KeepGoing& keep_going = {});

/// All cells [first_cell, ...) of a source of the corpus, window_cells at a time, each window read while the
/// one before is computed. `take` gets the first row and the rows [cells, D] of every window, in order. False
/// when keep_going said to stop; the window at hand is then not given.
bool embed_source(const model::Encoder& encoder, const data::Corpus& corpus, int32_t source,
                  int64_t first_cell, int64_t window_cells, const EmbeddingOptions& options,
                  const std::function<void(int64_t first_cell, const at::Tensor& rows)>& take,
                  const KeepGoing& keep_going = {});

}  // namespace scrna::eval
