// From a fine-tuned model and a file of cells to their classes in that file's copy: what `scrna-train
// annotate` does with each of its inputs. As embed_file.h: all cells in their order, one without enough genes
// of the vocabulary has no class and is counted, and rows that are done are kept beside the output, so that
// an interrupted command goes on.
#pragma once

#include <filesystem>
#include <string>

#include "lib/data/annotation_file.h"
#include "lib/finetune/finetuned_model.h"
#include "lib/train/embed_file.h"

namespace scrna::finetune {

/// A fine-tuned model that is ready to predict.
struct Annotator {
  FinetunedModel model;
  train::Embedder embedder;
};

/// Throws as train::make_embedder().
Annotator make_annotator(FinetunedModel model, const train::TrainConfig& config, int64_t tokens_per_pack);

/// "scrna_" and the label it was trained on.
std::string default_key(const Classifier& classifier);

/// SHA-256 of everything the predictions for that file depend on.
std::string settings_of(const Annotator& annotator, const std::filesystem::path& file);

struct AnnotateReport : train::CellRowsReport {
  data::AnnotationCounts counts;
};

/// Predicts the classes of all cells of target.input and writes target.output. Throws as train::embed_file().
AnnotateReport annotate_file(const Annotator& annotator, const data::AnnotationTarget& target,
                             const std::string& program, const data::Progress& open_progress,
                             const train::EmbedProgress& keep_going);

}  // namespace scrna::finetune
