#include "lib/finetune/annotate_file.h"

#include <utility>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/eval/partial_rows.h"

namespace scrna::finetune {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kWindowCellsGpu = 4096, kWindowCellsCpu = 512;  // as embed_file.cpp

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
          {"precision", std::string(annotator.embedder.encoder->compute_type() == at::kBFloat16 ? "bf16" : "fp32")},
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
  Annotator annotator{.model = std::move(model),
                      .embedder = train::make_embedder(std::move(encoder), config, {.tokens_per_pack = tokens_per_pack})};
  const Classifier& classifier = annotator.model.classifier;
  log::info("[model] {} classes of '{}', fine-tuned from {}", classifier.classes.size(), classifier.label, classifier.base);
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

AnnotateReport annotate_file(const Annotator& annotator, const data::AnnotationTarget& target, const std::string& program,
                             const data::Progress& open_progress, const train::EmbedProgress& keep_going) {
  const Classifier& classifier = annotator.model.classifier;
  const auto num_classes = std::ssize(classifier.classes);
  const train::Embedder& embedder = annotator.embedder;
  const data::Corpus corpus = train::open_cells(embedder, target.input, open_progress);
  AnnotateReport report{.cells = corpus.reports().front().cells};
  const int64_t window_cells = embedder.encoder->device().is_cuda() ? kWindowCellsGpu : kWindowCellsCpu;
  fs::path partial_path = target.output;
  partial_path += ".partial";
  eval::PartialRows partial(partial_path, settings_of(annotator, target.input), report.cells, num_classes, window_cells);
  report.resumed_cells = partial.num_done();
  if (report.resumed_cells > 0) {
    log::info("[annotate] {}: {} of {} cells were done before; going on from there", target.input.string(),
              grouped(report.resumed_cells), grouped(report.cells));
  } else if (partial.was_replaced()) {
    log::warning("[annotate] {}: rows of another model, file or settings; begun anew", partial_path.string());
  }
  const double start = now_seconds();
  bool is_finished = false;
  try {
    is_finished = eval::embed_source(
        *embedder.encoder, corpus, 0, report.resumed_cells, window_cells, embedder.options,
        [&](int64_t /*first*/, const at::Tensor& rows) {
          const at::Tensor probabilities = classifier.head.probabilities(rows).contiguous();
          partial.append(probabilities.const_data_ptr<float>(), probabilities.size(0));
        },
        [&](int64_t done) { return !keep_going || keep_going(report.resumed_cells + done, report.cells); });
  } catch (const c10::OutOfMemoryError&) {
    throw DeviceError("the GPU's memory is full; lower --tokens-per-pack (now {})", embedder.options.tokens_per_pack);
  }
  report.seconds = now_seconds() - start;
  if (!is_finished) return report;
  log::info("[annotate] {}: writing {}", target.input.string(), target.output.string());
  report.counts = data::write_annotations(
      target, report.cells, classifier.classes,
      [&](int64_t first, int64_t count, float* out) { partial.read(first, count, out); },
      record_of(annotator, target, corpus, program));
  partial.remove();
  report.is_finished = true;
  return report;
}

}  // namespace scrna::finetune
