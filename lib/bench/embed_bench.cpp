#include "lib/bench/embed_bench.h"

#include <algorithm>

#include <ATen/Parallel.h>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/random.h"
#include "lib/data/pack_plan.h"
#include "lib/data/vocabulary.h"
#include "lib/model/encoder.h"
#include "lib/train/matrix_ceiling.h"
#include "lib/train/prepared_run.h"

namespace scrna::bench {
namespace {

constexpr uint64_t kGeneSeed = 24325;

// Neighbours of a file, as data::tokenize_cells() gives them.
data::TokenizedCells make_cells(const EmbedBenchOptions& options) {
  const std::vector<int32_t> lengths =
      cell_lengths({.lengths = options.lengths, .cells = options.cells, .context = options.context});
  const auto num_genes = static_cast<uint64_t>(options.vocabulary - data::Vocabulary::kNumSpecial);
  data::TokenizedCells cells;
  for (std::size_t cell = 0; cell < lengths.size(); ++cell) {
    const RandomStream genes(kGeneSeed, RandomPurpose::kSynthesize, cell);
    for (int32_t rank = 0; rank < lengths[cell]; ++rank) {
      cells.tokens.push_back(data::Vocabulary::kNumSpecial +
                             static_cast<int32_t>(genes.bits(static_cast<uint64_t>(rank)) % num_genes));
    }
    cells.begin.push_back(std::ssize(cells.tokens));
  }
  return cells;
}

train::StepLoad load_of(const data::TokenizedCells& cells) {
  train::StepLoad load;
  const std::vector<int32_t> begin(cells.begin.begin(), cells.begin.end());
  train::add_cells(load, begin, std::ssize(cells.tokens));
  return load;
}

// A third of a step without masked tokens, of the blocks that are computed.
double forward_flop(const model::ModelConfig& model, const EmbedBenchOptions& options, int64_t num_blocks,
                    const train::StepLoad& load) {
  model::ModelConfig computed = model;
  computed.num_layers = num_blocks;
  return train::step_flop(computed, options.vocabulary, load) / 3;
}

}  // namespace

EmbedBenchResult bench_embedding(const train::TrainConfig& config, const EmbedBenchOptions& options,
                                 const std::function<void(std::string_view)>& tell) {
  SCRNA_CHECK(config.tokenizer.max_tokens == options.context, "context {} of a model for {}", options.context,
              config.tokenizer.max_tokens);
  if (options.device == Device::kCuda) require_gpu("bench embed");
  const at::Device device = options.device == Device::kCuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  if (config.train.num_threads > 0) at::set_num_threads(static_cast<int>(config.train.num_threads));
  const at::ScalarType compute_type = train::choose_compute_type(config.train.precision, device);
  const eval::EmbeddingOptions embedding{
      .pooling = options.pooling,
      .num_blocks = eval::resolve_layer(options.layer, config.model.num_layers),
      .has_cls = config.tokenizer.add_cls,
      .tokens_per_pack = options.tokens_per_pack};
  const data::TokenizedCells cells = make_cells(options);

  EmbedBenchResult result{.load = load_of(cells)};
  std::vector<int32_t> lengths;
  for (int64_t cell = 0; cell < cells.num_cells(); ++cell)
    lengths.push_back(static_cast<int32_t>(cells.tokens_of(cell).size()));
  result.longest_cell_tokens = *std::ranges::max_element(lengths);
  result.packs = std::ssize(data::plan_packs(lengths, options.tokens_per_pack));
  result.compute_type = compute_type == at::kBFloat16 ? "bf16" : "fp32";
  result.flop = forward_flop(config.model, options, embedding.num_blocks, result.load);
  tell("making the model");
  const model::Encoder encoder(config.model, options.vocabulary, options.context, config.train.seed, device,
                               compute_type);
  result.parameters = encoder.parameters().num_elements();
  result.attention = encoder.describe_attention();
  tell("timing matrix products");
  result.ceiling_flop_per_second = train::measure_matrix_ceiling(device, compute_type);
  tell("embedding");
  eval::embed_cells(encoder, cells, embedding);
  for (int64_t i = 0; i < options.repeats; ++i) {
    const double start = now_seconds();
    eval::embed_cells(encoder, cells, embedding);  // waits for the GPU at its end
    result.seconds.push_back(now_seconds() - start);
  }
  std::vector<double> sorted = result.seconds;
  std::ranges::sort(sorted);
  result.median_seconds = sorted[sorted.size() / 2];
  if (!device.is_cpu()) result.memory = train::device_memory(device);
  result.peak_resident_bytes = train::peak_resident_bytes();
  return result;
}

}  // namespace scrna::bench
