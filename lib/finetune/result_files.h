// What a fine-tuning run leaves besides the model: metrics.jsonl (a line for each epoch), finetune.json
// (settings, provenance, what was left out, scores), per_class.csv, confusion.csv and
// heldout_predictions.csv.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lib/finetune/classifier_training.h"
#include "lib/finetune/finetuned_model.h"
#include "lib/finetune/labelled_cells.h"

namespace scrna::finetune {

/// Why training ended.
enum class Ending { kRunning, kLastEpoch, kEarly, kSignal, kDiverged };

struct FinetuneResult {
  std::filesystem::path folder;
  FinetuneConfig config;  // resolved
  Classifier classifier;  // without the head
  std::string base_vocabulary_sha256;
  std::string device, precision;
  // Cells of the files, and what became of them.
  int64_t file_cells = 0, unlabelled = 0, ignored = 0, without_group = 0, without_genes = 0, rare_cells = 0;
  std::vector<std::string> rare_classes, held_groups;
  std::vector<int64_t> training_cells_of_class;  // [C]
  int64_t training_cells = 0, heldout_cells = 0, heldout_twins = 0;
  Epoch best;
  int64_t epochs_done = 0;
  double seconds = 0;
  Ending ending = Ending::kRunning;
};

/// The line of an epoch, without newline.
std::string epoch_line(const Epoch& epoch);

/// Names in obs of the held-out cells, in the order of split.heldout. Throws DataError as reading does.
std::vector<std::string> heldout_names(const LabelledCells& cells, const Labelling& labelling,
                                       const Split& split);

/// Writes finetune.json and the CSV files of result.best, each whole. names: heldout_names(). Throws
/// DataError.
void write_results(const FinetuneResult& result, const LabelledCells& cells, const Labelling& labelling,
                   const Split& split, const std::vector<std::string>& names);

}  // namespace scrna::finetune
