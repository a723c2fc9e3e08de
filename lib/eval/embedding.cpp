#include "lib/eval/embedding.h"

#include <algorithm>
#include <cmath>
#include <future>
#include <limits>
#include <vector>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mean.h>

#include "lib/core/error.h"
#include "lib/data/pack_plan.h"
#include "lib/model/token_tensors.h"

namespace scrna::eval {
namespace {

// Cells of a window with tokens, and their packs as indices into them.
struct PackedWindow {
  std::vector<int64_t> cells;  // positions in the window
  std::vector<std::vector<int32_t>> packs;
};

PackedWindow plan(const data::TokenizedCells& cells, int64_t tokens_per_pack) {
  PackedWindow window;
  std::vector<int32_t> lengths;
  for (int64_t cell = 0; cell < cells.num_cells(); ++cell) {
    const auto length = static_cast<int32_t>(cells.tokens_of(cell).size());
    if (length == 0) continue;
    window.cells.push_back(cell);
    lengths.push_back(length);
  }
  window.packs = data::plan_packs(lengths, tokens_per_pack);
  return window;
}

}  // namespace

PackedMicroBatch pack_of(const data::TokenizedCells& cells, std::span<const int64_t> members) {
  PackedMicroBatch pack;
  pack.cu_seqlens.push_back(0);
  for (const int64_t cell : members) {
    const std::span<const int32_t> tokens = cells.tokens_of(cell);
    pack.tokens.insert(pack.tokens.end(), tokens.begin(), tokens.end());
    for (int32_t rank = 0; rank < std::ssize(tokens); ++rank) pack.ranks.push_back(rank);
    pack.cu_seqlens.push_back(static_cast<int32_t>(pack.tokens.size()));
    pack.cell_ids.push_back(static_cast<uint64_t>(cells.first_cell + cell));
    pack.max_cell_tokens = std::max(pack.max_cell_tokens, static_cast<int32_t>(tokens.size()));
  }
  return pack;
}

int64_t resolve_layer(int64_t layer, int64_t num_layers) {
  const int64_t resolved = layer < 0 ? num_layers + 1 + layer : layer;
  if (resolved < 0 || resolved > num_layers) {
    throw ConfigError("--layer: expected 0 (the embeddings) to {} (the last), or -1 (the last) to {}, got {}",
                      num_layers, -num_layers - 1, layer);
  }
  return resolved;
}

at::Tensor pool_cells(const at::Tensor& hidden_TD, const at::Tensor& cu_seqlens_host,
                      const EmbeddingOptions& options) {
  const at::NoGradGuard no_grad;
  const int32_t* begin = cu_seqlens_host.const_data_ptr<int32_t>();
  const int64_t num_cells = cu_seqlens_host.numel() - 1;
  at::Tensor pooled_BD = at::empty({num_cells, hidden_TD.size(1)}, hidden_TD.options().dtype(at::kFloat));
  for (int64_t cell = 0; cell < num_cells; ++cell) {
    at::Tensor row = pooled_BD.select(0, cell);
    if (options.pooling == Pooling::kFirst) {
      row.copy_(hidden_TD.select(0, begin[cell]), /*non_blocking=*/true);
      continue;
    }
    const int64_t first = begin[cell] + (options.has_cls ? 1 : 0);
    const at::Tensor tokens = hidden_TD.narrow(0, first, begin[cell + 1] - first);
    if (options.pooling == Pooling::kMean) {
      at::mean_out(row, tokens, {0}, /*keepdim=*/false, at::kFloat);
    } else {
      row.copy_(tokens.amax({0}), /*non_blocking=*/true);
    }
  }
  return pooled_BD;
}

at::Tensor embed_cells(const model::Encoder& encoder, const data::TokenizedCells& cells,
                       const EmbeddingOptions& options, const KeepGoing& keep_going) {
  const at::NoGradGuard no_grad;
  const PackedWindow window = plan(cells, options.tokens_per_pack);
  const int64_t width = encoder.config().width;
  at::Tensor pooled =
      at::empty({std::ssize(window.cells), width}, at::TensorOptions(at::kFloat).device(encoder.device()));
  std::vector<int64_t> cell_of_row;
  for (const std::vector<int32_t>& members : window.packs) {
    if (keep_going && !keep_going(std::ssize(cell_of_row))) return {};
    std::vector<int64_t> of_window;
    for (const int32_t member : members) of_window.push_back(window.cells[static_cast<std::size_t>(member)]);
    const model::TokenTensors input = model::to_device(pack_of(cells, of_window), encoder.device());
    model::ForwardContext context{.training = false};
    const at::Tensor hidden = encoder.hidden_states_after(options.num_blocks, input, context);
    pooled.narrow(0, std::ssize(cell_of_row), std::ssize(members))
        .copy_(pool_cells(hidden, input.cu_seqlens_host, options));
    cell_of_row.insert(cell_of_row.end(), of_window.begin(), of_window.end());
  }
  const at::Tensor host = pooled.to(at::kCPU);  // waits for the GPU
  at::Tensor rows = at::full({cells.num_cells(), width}, std::numeric_limits<float>::quiet_NaN(), at::kFloat);
  for (std::size_t row = 0; row < cell_of_row.size(); ++row) {
    const float* from = host.const_data_ptr<float>() + static_cast<int64_t>(row) * width;
    if (!std::all_of(from, from + width, [](float value) { return std::isfinite(value); })) {
      throw NumericError(
          "the embedding of cell {} (counted from 0) is not finite: the model's weights are damaged, or "
          "it diverged in training; try another checkpoint{}",
          cells.first_cell + cell_of_row[row],
          encoder.compute_type() == at::kFloat ? "" : ", or --precision fp32");
    }
    std::copy(from, from + width, rows.mutable_data_ptr<float>() + cell_of_row[row] * width);
  }
  return rows;
}

bool embed_source(const model::Encoder& encoder, const data::Corpus& corpus, int32_t source,
                  int64_t first_cell, int64_t window_cells, const EmbeddingOptions& options,
                  const std::function<void(int64_t first_cell, const at::Tensor& rows)>& take,
                  const KeepGoing& keep_going) {
  const int64_t num_cells = corpus.source(source).matrix->num_cells();
  const auto read_ahead = [&](int64_t first) {
    return std::async(std::launch::async,
                      [&corpus, source, first, count = std::min(window_cells, num_cells - first)] {
                        return data::tokenize_cells(corpus, source, first, count);
                      });
  };
  std::future<data::TokenizedCells> next;
  if (first_cell < num_cells) next = read_ahead(first_cell);
  for (int64_t first = first_cell; first < num_cells; first += window_cells) {
    const data::TokenizedCells cells = next.get();
    if (first + window_cells < num_cells) next = read_ahead(first + window_cells);
    const auto keep_going_in_window = [&](int64_t done) {
      return !keep_going || keep_going(first - first_cell + done);
    };
    const at::Tensor rows = embed_cells(encoder, cells, options, keep_going_in_window);
    if (!rows.defined()) return false;
    take(first, rows);
  }
  return true;
}

}  // namespace scrna::eval
