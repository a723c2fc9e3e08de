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

train::Embedder embedder_of(const ModelChoice& choice, const std::string& checkpoint) {
  std::vector<std::string> assignments = choice.overrides;
  if (!choice.device.empty()) assignments.push_back("train.device=" + choice.device);
  if (!choice.precision.empty()) assignments.push_back("train.precision=" + choice.precision);
  auto model = std::make_shared<const train::TrainedModel>(train::load_trained_model(checkpoint));
  const train::TrainConfig config = train::config_for_use(*model, assignments);
  return train::make_embedder(std::move(model), config, {});
}

data::Corpus open_corpus(const train::Embedder& embedder, const std::string& file) {
  PhaseProgress progress("cells");
  return train::open_cells(embedder, file, [&](std::string_view phase, int64_t done, int64_t total) {
    goes_on();
    progress(phase, done, total);
  });
}

EvaluatedModel evaluate_model(const ModelChoice& choice, const train::Embedder& embedder, const data::Corpus& corpus,
                              const std::vector<int64_t>& cells, const std::string& name, const std::string& group) {
  EvaluatedModel out{group, {name, embed(embedder, corpus, name)}, {}};
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

std::string untrained_name(const std::string& name) { return name + " untrained"; }

void check_models(const ModelChoice& choice, const std::vector<DataSet>& sets) {
  for (const NamedCheckpoint& checkpoint : choice.checkpoints) {
    const train::Embedder embedder = embedder_of(choice, checkpoint.path);
    for (const DataSet& set : sets) open_corpus(embedder, set.file);
  }
}

std::vector<EvaluatedModel> evaluate_models(const ModelChoice& choice, const std::string& file,
                                            const std::vector<int64_t>& cells) {
  std::vector<EvaluatedModel> out;
  for (const NamedCheckpoint& checkpoint : choice.checkpoints) {
    train::Embedder embedder = embedder_of(choice, checkpoint.path);
    const train::TrainConfig& config = embedder.config;
    const data::Corpus corpus = open_corpus(embedder, file);
    out.push_back(evaluate_model(choice, embedder, corpus, cells, checkpoint.name, checkpoint.group));
    embedder.encoder = std::make_unique<model::Encoder>(config.model, embedder.model->vocabulary.size(),
                                                        config.tokenizer.max_tokens, config.train.seed,
                                                        embedder.encoder->device(), embedder.encoder->compute_type());
    out.push_back(evaluate_model(choice, embedder, corpus, cells, untrained_name(checkpoint.name),
                                 checkpoint.group.empty() ? "" : untrained_name(checkpoint.group)));
  }
  return out;
}

}  // namespace scrna::app
