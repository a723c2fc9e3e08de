#include "lib/train/start.h"

#include <string>

#include "lib/config/config.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/train/trained_model.h"

namespace scrna::train {
namespace {

namespace fs = std::filesystem;

LoadedCheckpoint load(const ResumePoint& point) {
  LoadedCheckpoint loaded{
      .folder = point.checkpoint, .contents = checkpoint::load(point.checkpoint), .state = {}};
  loaded.state = parse_state(loaded.contents, point.checkpoint);
  return loaded;
}

// The vocabulary of a resumed run is its own, unless the configuration names another, which must then be
// equal.
fs::path vocabulary_of(const TrainConfig& config, const std::optional<ResumePoint>& resume) {
  if (!resume || !config.data.vocabulary.empty()) return config.data.vocabulary;
  return resume->run_directory / "vocabulary.tsv";
}

// The vocabulary is compared before the cells are read: a wrong one may not even fit them.
void require_same_vocabulary(const LoadedCheckpoint& loaded, const fs::path& vocabulary_file) {
  const std::string hash = data::Vocabulary::load(vocabulary_file).hash();
  if (hash != loaded.state.vocabulary_sha256) {
    throw CheckpointError(
        "{}: was trained with another vocabulary (SHA-256 {:.12}...) than {} ({:.12}...); resume with the "
        "vocabulary.tsv of its own run, or begin a new run",
        loaded.folder.string(), loaded.state.vocabulary_sha256, vocabulary_file.string(), hash);
  }
}

std::string gene_map_hash(const TrainConfig& config) {
  return config.data.gene_map.empty() ? "" : sha256_of_file(config.data.gene_map);
}

// Another mapping gives the cells other tokens under the same vocabulary. A checkpoint of an older version
// says nothing of it.
void require_same_gene_map(const LoadedCheckpoint& loaded, const TrainConfig& config) {
  const std::string& before = loaded.state.gene_map_sha256;
  if (before.empty() || before == gene_map_hash(config)) return;
  throw CheckpointError(
      "{}: data.gene_map {} is not the mapping the run was trained with (SHA-256 {:.12}..., now {:.12}...): "
      "cells would "
      "get other tokens. Restore the file, or begin a new run",
      loaded.folder.string(), config.data.gene_map, before, gene_map_hash(config));
}

void restore_run(const LoadedCheckpoint& loaded, PreparedRun& run) {
  if (fingerprint_of(*run.corpus) != loaded.state.training_cells_sha256) {
    throw CheckpointError(
        "{}: the cells are not those it was trained on: files, their order, their cells or the held-out part "
        "differ, so "
        "its position in the data means nothing. Give the same data.files, or begin a new run",
        loaded.folder.string());
  }
  restore(loaded.contents, loaded.folder, loaded.state, *run.encoder, *run.optimizer);
  log::info("[resume] {}: step {}, epoch {}, {} cells seen", loaded.folder.string(), loaded.state.step,
            loaded.state.epoch, grouped(loaded.state.cells));
}

// train.initial_weights: the vocabulary is the model's, since the rows of its embedding are that one's genes.
PreparedRun prepare_from(const TrainedModel& model, const TrainConfig& config, at::Device device,
                         dist::Communicator& communicator) {
  if (!config.data.vocabulary.empty() &&
      data::Vocabulary::load(config.data.vocabulary).hash() != model.vocabulary_sha256) {
    throw ConfigError(
        "train.initial_weights: {} has another vocabulary than data.vocabulary = {}; leave data.vocabulary empty to "
        "take the model's",
        model.source.string(), config.data.vocabulary);
  }
  PreparedRun run = prepare(config, {}, device, communicator, &model.vocabulary);
  restore_weights(model.weights, model.source, *run.encoder);
  log::info("[model] initial weights: {}, step {} (SHA-256 {:.12}...)", model.source.string(), model.step,
            model.weights_sha256);
  return run;
}

}  // namespace

Start prepare_start(const TrainConfig& config, const std::optional<ResumePoint>& resume, at::Device device,
                    dist::Communicator& communicator) {
  Start start;
  if (resume) {
    require_compatible(config::load<TrainConfig>(resume->run_directory / "config.yaml", {}), config,
                       resume->run_directory);
    start.loaded = load(*resume);
    require_same_vocabulary(*start.loaded, vocabulary_of(config, resume));
    require_same_gene_map(*start.loaded, config);
  }
  if (!resume && !config.train.initial_weights.empty()) {
    start.run = prepare_from(load_trained_model(config.train.initial_weights), config, device, communicator);
  } else {
    start.run = prepare(config, vocabulary_of(config, resume), device, communicator);
  }
  if (resume) restore_run(*start.loaded, start.run);
  return start;
}

RunState first_state(const TrainConfig& config, const PreparedRun& run) {
  RunState state;
  state.seed = config.train.seed;
  state.vocabulary_sha256 = run.corpus->vocabulary().hash();
  state.training_cells_sha256 = fingerprint_of(*run.corpus);
  state.gene_map_sha256 = gene_map_hash(config);
  return state;
}

}  // namespace scrna::train
