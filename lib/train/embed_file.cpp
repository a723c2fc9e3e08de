#include "lib/train/embed_file.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <ATen/Parallel.h>

#include "lib/config/config.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/train/prepared_run.h"

namespace scrna::train {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kPackTokensGpu = 65536, kPackTokensCpu = 8192;

std::string layer_words(const Embedder& embedder) {
  const int64_t layer = embedder.options.num_blocks, last = embedder.config.model.num_layers;
  if (layer == last) return fmt::format("{} (the last, after the final LayerNorm)", layer);
  return layer == 0 ? "0 (the embeddings)" : fmt::format("{} (of {}, before any LayerNorm)", layer, last);
}

const char* type_words(const Embedder& embedder) {
  return embedder.encoder->compute_type() == at::kBFloat16 ? "bf16" : "fp32";
}

data::EmbeddingRecord record_of(const Embedder& embedder, const data::EmbeddingTarget& target,
                                const data::Corpus& corpus, const EmbedReport& report,
                                const std::string& program) {
  const TrainedModel& model = *embedder.model;
  const data::SourceReport& source = corpus.reports().front();
  return {{"checkpoint", model.source.string()},
          {"checkpoint_step", model.step},
          {"weights_sha256", model.weights_sha256},
          {"vocabulary_sha256", model.vocabulary_sha256},
          {"config_sha256", model.config_sha256},
          {"pooling", std::string(name_of(embedder.options.pooling))},
          {"layer", embedder.options.num_blocks},
          {"num_layers", embedder.config.model.num_layers},
          {"max_tokens", embedder.config.tokenizer.max_tokens},
          {"precision", std::string(type_words(embedder))},
          {"attention_precision", std::string(config::name_of(embedder.config.model.attention_precision))},
          {"gelu_precision", std::string(config::name_of(embedder.config.model.gelu_precision))},
          {"residual_precision", std::string(config::name_of(embedder.config.model.residual_precision))},
          {"device", std::string(embedder.encoder->device().is_cuda() ? "cuda" : "cpu")},
          {"input", fs::path(target.input).filename().string()},
          {"matrix", source.matrix},
          {"gene_ids", corpus.source(0).gene_ids.source},
          {"min_genes", embedder.config.data.min_genes},
          {"cells_without_embedding", report.left_out},
          {"count_hit_rate", source.tokens.count_hit_rate()},
          {"truncated_count_share", source.tokens.truncated_counts()},
          {"program", program},
          {"settings_sha256", settings_of(embedder, target.input)}};
}

// embed_cells() gives NaN to those alone.
int64_t count_left_out(const CellRows& rows, int64_t num_rows, int64_t width) {
  constexpr int64_t kRowsPerRead = 4096;
  std::vector<float> values;
  int64_t count = 0;
  for (int64_t first = 0; first < num_rows; first += kRowsPerRead) {
    const int64_t read = std::min(kRowsPerRead, num_rows - first);
    values.resize(static_cast<std::size_t>(read * width));
    rows.read(first, read, values.data());
    for (int64_t row = 0; row < read; ++row)
      count += std::isnan(values[static_cast<std::size_t>(row * width)]) ? 1 : 0;
  }
  return count;
}

}  // namespace

Embedder make_embedder(std::shared_ptr<const TrainedModel> model, const TrainConfig& config,
                       const EmbedSettings& settings) {
  if (config.train.num_threads > 0) at::set_num_threads(static_cast<int>(config.train.num_threads));
  const int64_t num_blocks = eval::resolve_layer(settings.layer, config.model.num_layers);
  const at::Device device = choose_device(config.train.device, dist::World{});
  const at::ScalarType type = choose_compute_type(config.train.precision, device);
  Embedder embedder{
      .model = std::move(model), .config = config, .encoder = {}, .options = {}, .settings = settings};
  embedder.encoder = make_encoder(*embedder.model, config, device, type);
  embedder.options = {.pooling = settings.pooling,
                      .num_blocks = num_blocks,
                      .has_cls = config.tokenizer.add_cls,
                      .tokens_per_pack = settings.tokens_per_pack > 0 ? settings.tokens_per_pack
                                         : device.is_cuda()           ? kPackTokensGpu
                                                                      : kPackTokensCpu};
  log::info("[model] {}: step {}, {} parameters ({} layers x {}, {} genes in the vocabulary)",
            embedder.model->source.string(), grouped(embedder.model->step),
            short_count(static_cast<double>(embedder.encoder->parameters().num_elements())),
            config.model.num_layers, config.model.width,
            grouped(std::ssize(embedder.model->vocabulary.genes())));
  log::info("[model] {} on {}, {}; {} of layer {}", embedder.encoder->describe_attention(), device.str(),
            type_words(embedder), name_of(settings.pooling), layer_words(embedder));
  return embedder;
}

data::Corpus open_cells(const Embedder& embedder, const fs::path& file, const data::Progress& progress) {
  data::DataConfig data = embedder.config.data;
  data.files = {file.string()};
  const data::Vocabulary& vocabulary = embedder.model->vocabulary;
  return {data::open_sources(data, &vocabulary), vocabulary, data, embedder.config.tokenizer, progress};
}

std::string settings_of(const Embedder& embedder, const fs::path& file) {
  const TrainConfig& config = embedder.config;
  std::error_code problem;
  const auto time = fs::last_write_time(file, problem).time_since_epoch().count();
  const auto bytes = fs::file_size(file, problem);
  std::string text = fmt::format("{}\n{}\n{} {} {} {} {}\n{} {} {}\n", embedder.model->weights_sha256,
                                 embedder.model->vocabulary_sha256, name_of(embedder.options.pooling),
                                 embedder.options.num_blocks, embedder.options.tokens_per_pack,
                                 type_words(embedder), embedder.encoder->device().is_cuda() ? "cuda" : "cpu",
                                 file.filename().string(), bytes, time);
  for (const config::Entry& entry : config::entries(config)) {
    const bool matters = entry.path.starts_with("model.") || entry.path.starts_with("tokenizer.") ||
                         (entry.path.starts_with("data.") && entry.path != "data.num_workers");
    if (matters && !entry.is_section) text += fmt::format("{}={}\n", entry.path, entry.value);
  }
  return sha256(text);
}

EmbedReport embed_file(const Embedder& embedder, const data::EmbeddingTarget& target,
                       const std::string& program, const data::Progress& open_progress,
                       const EmbedProgress& keep_going) {
  const data::Corpus corpus = open_cells(embedder, target.input, open_progress);
  const int64_t width = embedder.config.model.width;
  CellRows rows(
      embedder, corpus,
      {.command = "embed",
       .input = target.input,
       .output = target.output,
       .settings = settings_of(embedder, target.input),
       .width = width,
       .is_copy = !target.beside,
       .space_advice = target.beside ? "; choose another folder"
                                     : "; choose another folder, or write only the embeddings (--beside)"});
  EmbedReport report{rows.compute([](const at::Tensor& embeddings) { return embeddings; }, keep_going)};
  if (!report.is_finished) return report;
  report.left_out = count_left_out(rows, report.cells, width);
  log::info("[embed] {}: writing {}", target.input.string(), target.output.string());
  data::write_embeddings(
      target, report.cells, width,
      [&](int64_t first, int64_t count, float* out) { rows.read(first, count, out); },
      record_of(embedder, target, corpus, report, program));
  rows.remove();
  return report;
}

}  // namespace scrna::train
