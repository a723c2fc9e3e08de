// A fine-tuned model on disk: a folder that `embed`, `evaluate`, `export` and `train.initial_weights` take
// like that of any run (config.yaml, vocabulary.tsv, checkpoints/), and beside it classifier.safetensors: the
// head, its classes, and which checkpoint of the folder it belongs to, by name and by hash. The head is not
// in the checkpoint's own files, which hold the parameters of an encoder and nothing else.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "lib/finetune/classification_head.h"
#include "lib/model/encoder.h"
#include "lib/train/trained_model.h"

namespace scrna::finetune {

/// What a classifier is made of besides the encoder.
struct Classifier {
  std::string label;                 // obs column it was trained on
  std::vector<std::string> classes;  // [C]
  HeadWeights head;
  std::string checkpoint;      // folder below checkpoints/ with its encoder
  std::string encoder_sha256;  // train::weights_hash() of it
  // Where it comes from.
  std::string base;                 // the checkpoint that fine-tuning began with, as it was named
  std::string base_weights_sha256;  // the same as encoder_sha256 when the encoder was frozen
  int64_t base_step = 0;
  std::string settings;  // finetune.yaml
  std::string program;
};

struct FinetunedModel {
  std::filesystem::path folder;
  std::shared_ptr<const train::TrainedModel> encoder;
  Classifier classifier;
  std::string classifier_sha256;  // of the file
};

/// Saves the encoder as checkpoint `step` below `folder`, keeping the one before. Returns name and hash in
/// `classifier`. Throws DataError.
void save_encoder(const std::filesystem::path& folder, const model::Encoder& encoder,
                  const train::TrainedModel& base, int64_t step, Classifier& classifier);

/// folder/classifier.safetensors, whole or as it was. Throws DataError.
void save_classifier(const std::filesystem::path& folder, const Classifier& classifier);

/// `path`: a folder that `finetune` wrote. Throws ConfigError when there is nothing, CheckpointError when it
/// has no head (saying how to make one), or is damaged, or head and encoder do not belong together.
FinetunedModel load_finetuned(const std::filesystem::path& path);

}  // namespace scrna::finetune
