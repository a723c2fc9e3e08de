#include "lib/finetune/annotate_file.h"

#include <utility>

#include <ATen/core/Tensor.h>

#include "lib/core/files.h"
#include "lib/core/log.h"

namespace scrna::finetune {
namespace {

namespace fs = std::filesystem;

data::EmbeddingRecord record_of(const Annotator& annotator, const data::AnnotationTarget& target,
                                const data::Corpus& corpus, const std::string& program) {
  const Classifier& classifier = annotator.model.classifier;
  const train::TrainedModel& encoder = *annotator.model.encoder;
  const data::SourceReport& source = corpus.reports().front();
  return {{"checkpoint", encoder.source.string()},
          {"label", classifier.label},
          {"classifier_sha256", annotator.model.classifier_sha256},
          {"weights_sha256", encoder.weights_sha256},
          {"vocabulary_sha256", encoder.vocabulary_sha256},
          {"finetuned_from", classifier.base},
          {"finetuned_from_weights_sha256", classifier.base_weights_sha256},
          {"precision",
           std::string(annotator.embedder.encoder->compute_type() == at::kBFloat16 ? "bf16" : "fp32")},
          {"device", std::string(annotator.embedder.encoder->device().is_cuda() ? "cuda" : "cpu")},
          {"input", target.input.filename().string()},
          {"matrix", source.matrix},
          {"gene_ids", corpus.source(0).gene_ids.source},
          {"min_genes", annotator.embedder.config.data.min_genes},
          {"count_hit_rate", source.tokens.count_hit_rate()},
          {"program", program},
          {"settings_sha256", settings_of(annotator, target.input)}};
}

}  // namespace

Annotator make_annotator(FinetunedModel model, const train::TrainConfig& config, int64_t tokens_per_pack) {
  auto encoder = model.encoder;
  Annotator annotator{
      .model = std::move(model),
      .embedder = train::make_embedder(std::move(encoder), config, {.tokens_per_pack = tokens_per_pack})};
  const Classifier& classifier = annotator.model.classifier;
  log::info("[model] {} classes of '{}', fine-tuned from {}", classifier.classes.size(), classifier.label,
            classifier.base);
  return annotator;
}

std::string default_key(const Classifier& classifier) {
  std::string key = "scrna_" + classifier.label;
  for (char& c : key)
    if (c == '/') c = '_';
  return key;
}

std::string settings_of(const Annotator& annotator, const fs::path& file) {
  return sha256(train::settings_of(annotator.embedder, file) + " " + annotator.model.classifier_sha256);
}

AnnotateReport annotate_file(const Annotator& annotator, const data::AnnotationTarget& target,
                             const std::string& program, const data::Progress& open_progress,
                             const train::EmbedProgress& keep_going) {
  const Classifier& classifier = annotator.model.classifier;
  const train::Embedder& embedder = annotator.embedder;
  const data::Corpus corpus = train::open_cells(embedder, target.input, open_progress);
  train::CellRows rows(embedder, corpus,
                       {.command = "annotate",
                        .input = target.input,
                        .output = target.output,
                        .settings = settings_of(annotator, target.input),
                        .width = std::ssize(classifier.classes),
                        .space_advice = "; choose another folder"});
  AnnotateReport report{rows.compute(
      [&](const at::Tensor& embeddings) { return classifier.head.probabilities(embeddings).contiguous(); },
      keep_going)};
  if (!report.is_finished) return report;
  log::info("[annotate] {}: writing {}", target.input.string(), target.output.string());
  report.counts = data::write_annotations(
      target, report.cells, classifier.classes,
      [&](int64_t first, int64_t count, float* out) { rows.read(first, count, out); },
      record_of(annotator, target, corpus, program));
  rows.remove();
  return report;
}

}  // namespace scrna::finetune
