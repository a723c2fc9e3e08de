#include "apps/scrna_train/evaluate_models.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>

#include <ATen/core/Tensor.h>

#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"
#include "lib/eval/embedding.h"
#include "lib/train/embed_file.h"

namespace scrna::app {
namespace {

constexpr int64_t kWindowCells = 512;

/// "runs/first" -> "first", "runs/first/checkpoints/step-00000500" -> "first step-00000500", "m.safetensors" -> "m".
std::string short_name(const std::string& checkpoint) {
  std::filesystem::path path = std::filesystem::path(checkpoint).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const std::filesystem::path parent = path.parent_path();
  if (parent.filename() == "checkpoints") return parent.parent_path().filename().string() + " " + path.filename().string();
  return path.extension() == ".safetensors" ? path.stem().string() : path.filename().string();
}

bool goes_on() {
  if (stop_signal() != 0) throw Interrupted("stopped by signal {} during the evaluation; nothing was written", stop_signal());
  return true;
}

eval::CellMatrix embed(const train::Embedder& embedder, const data::Corpus& corpus, const std::string& name) {
  const int64_t cells = corpus.source(0).matrix->num_cells(), width = embedder.config.model.width;
  eval::CellMatrix out(cells, width);
  ProgressBar bar("embedding, " + name, cells, "cells");
  eval::embed_source(
      *embedder.encoder, corpus, 0, 0, kWindowCells, embedder.options,
      [&](int64_t first, const at::Tensor& rows) {
        const float* values = rows.const_data_ptr<float>();
        std::copy(values, values + rows.numel(), out.row(first));
      },
      [&](int64_t done) {
        bar.update(done);
        return goes_on();
      });
  return out;
}

EvaluatedModel evaluate_model(const ModelChoice& choice, const train::Embedder& embedder, const data::Corpus& corpus,
                              const std::vector<int64_t>& cells, const std::string& name) {
  EvaluatedModel out{{name, embed(embedder, corpus, name)}, {}};
  if (choice.num_maskings == 0) return out;
  ProgressBar bar("masked loss, " + name, static_cast<int64_t>(cells.size()), "cells");
  out.loss = eval::masked_loss(*embedder.encoder, corpus, 0, cells,
                               {.num_maskings = choice.num_maskings, .mask_fraction = embedder.config.masking.fraction,
                                .tokens_per_pack = embedder.options.tokens_per_pack},
                               [&](int64_t done) {
                                 bar.update(done);
                                 return goes_on();
                               });
  return out;
}

}  // namespace

std::vector<EvaluatedModel> evaluate_models(const ModelChoice& choice, const std::string& file,
                                            const std::vector<int64_t>& cells) {
  std::vector<EvaluatedModel> out;
  std::vector<std::string> assignments;
  if (!choice.device.empty()) assignments.push_back("train.device=" + choice.device);
  if (!choice.precision.empty()) assignments.push_back("train.precision=" + choice.precision);
  for (const std::string& checkpoint : choice.checkpoints) {
    auto model = std::make_shared<const train::TrainedModel>(train::load_trained_model(checkpoint));
    const train::TrainConfig config = train::config_for_use(*model, assignments);
    train::Embedder embedder = train::make_embedder(std::move(model), config, {});
    PhaseProgress progress("cells");
    const data::Corpus corpus = train::open_cells(embedder, file, std::ref(progress));
    progress.finish();
    const std::string name = short_name(checkpoint);
    out.push_back(evaluate_model(choice, embedder, corpus, cells, name));
    embedder.encoder = std::make_unique<model::Encoder>(config.model, embedder.model->vocabulary.size(),
                                                        config.tokenizer.max_tokens, config.train.seed,
                                                        embedder.encoder->device(), embedder.encoder->compute_type());
    out.push_back(evaluate_model(choice, embedder, corpus, cells, name + " untrained"));
  }
  return out;
}

}  // namespace scrna::app
