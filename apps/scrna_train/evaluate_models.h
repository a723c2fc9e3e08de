// The part of `evaluate` that needs a model: embeddings of a checkpoint, of the same model before training, and their
// masked loss.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "apps/scrna_train/evaluate_inputs.h"
#include "lib/eval/evaluation_data.h"
#include "lib/eval/masked_loss.h"

namespace scrna::app {

struct ModelChoice {
  std::vector<NamedCheckpoint> checkpoints;  // run directories, checkpoint folders, exported files
  std::string device, precision;             // empty: auto
  std::vector<std::string> overrides;        // KEY=VALUE: how files are read
  int64_t num_maskings = 15;                 // 0: no loss
};

/// What was made of one model.
struct EvaluatedModel {
  std::string group;                     // "sigmoid", "sigmoid untrained"; empty: none
  eval::NamedEmbedding embedding;        // of all cells of the file
  std::optional<eval::MaskedLoss> loss;  // of `cells`
};

/// Of the model before training, beside the trained one's.
std::string untrained_name(const std::string& name);

/// Opens every file with every model and computes nothing: a file that a model cannot read is found before hours of work.
/// Throws what evaluate_models() throws for such a file.
void check_models(const ModelChoice& choice, const std::vector<DataSet>& sets);

/// For each checkpoint two results: the trained model and, with its untrained_name(), the same architecture with the weights
/// that its seed draws. Cells without enough genes of the vocabulary are NaN. The loss is that of `cells` (rows of the
/// file). Throws Interrupted after a signal, and what train::load_trained_model() and train::open_cells() throw.
std::vector<EvaluatedModel> evaluate_models(const ModelChoice& choice, const std::string& file,
                                            const std::vector<int64_t>& cells);

}  // namespace scrna::app
