// A trained model by itself, from where it is kept to an encoder: a run directory, one of its checkpoints, or
// one exported file. The exported file is a safetensors file: the weights under their names, and as its
// metadata the vocabulary (with the tokenizer's medians), the configuration and where it all comes from, so
// that it is complete without the run. scripts/scrna_torch.py reads and writes the same file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "lib/checkpoint/safetensors.h"
#include "lib/data/vocabulary.h"
#include "lib/model/encoder.h"
#include "lib/train/train_config.h"

namespace scrna::train {

struct TrainedModel {
  std::filesystem::path source;  // checkpoint folder or exported file
  int64_t step = 0;              // optimizer steps it was trained for
  std::string config_text;       // YAML, as the training run resolved it
  TrainConfig config;            // the same, read
  data::Vocabulary vocabulary;
  checkpoint::Safetensors weights;  // fp32, on the CPU
  std::string weights_sha256;       // of names, shapes and numbers: the same in a checkpoint and exported
  std::string vocabulary_sha256;
  std::string config_sha256;  // of config_text
};

/// SHA-256 of names, shapes and numbers of tensors on the CPU, in no order: TrainedModel::weights_sha256.
std::string weights_hash(const checkpoint::Safetensors& weights);

/// `path`: a run directory (its newest whole checkpoint), one checkpoint folder, or an exported file. The
/// optimizer's state is not read. Throws ConfigError when there is nothing like that, CheckpointError for
/// what is damaged or does not belong together.
TrainedModel load_trained_model(const std::filesystem::path& path);

/// The model's configuration for other files: `assignments` ("train.device=cpu") over it, what chose the
/// files and cells of the run (data.files, data.filter, the held-out part ...) left out. Throws ConfigError
/// for one that belongs to the trained model itself (tokenizer, shape of the encoder) and for unknown ones.
TrainConfig config_for_use(const TrainedModel& model, std::span<const std::string> assignments);

/// The model on a device; `config` is config_for_use()'s. Throws CheckpointError when the weights are not
/// those of such a model.
std::unique_ptr<model::Encoder> make_encoder(const TrainedModel& model, const TrainConfig& config,
                                             at::Device device, at::ScalarType compute_type);

/// One file (trained_model.cpp lists the metadata). `program`: its version, for the record. Throws DataError
/// when it cannot be written; then nothing is at `path`.
void export_model(const TrainedModel& model, const std::filesystem::path& path, const std::string& program);

}  // namespace scrna::train
