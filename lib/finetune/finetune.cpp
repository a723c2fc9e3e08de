#include "lib/finetune/finetune.h"

#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include <c10/util/Exception.h>

#include "lib/config/config.h"
#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"
#include "lib/data/label_words.h"
#include "lib/train/prepared_run.h"
#include "lib/train/run_directory.h"

namespace scrna::finetune {
namespace {

namespace fs = std::filesystem;

void require_free(const fs::path& out) {
  std::error_code problem;
  if (out.empty()) throw ConfigError("--out: empty; name the folder to make, for example runs/types");
  if (fs::exists(fs::symlink_status(out, problem)))
    throw ConfigError(
        "--out {}: exists already; choose another folder, or remove it: a run is begun again, not resumed",
        out.string());
  train::RunDirectory::require_free(out);
}

void tell_labels(const Labelling& labelling, const LabelledCells& cells, const Split& split,
                 const FinetuneConfig& config) {
  const auto left_out = [&](int64_t count, const std::string& why) {
    if (count > 0)
      log::warning("[finetune] {} of {} cells left out: {}", grouped(count), grouped(labelling.file_cells),
                   why);
  };
  left_out(labelling.unlabelled, fmt::format("no '{}'", config.label));
  left_out(labelling.ignored, fmt::format("--ignore-label {}", fmt::join(config.ignored_labels, ", ")));
  for (const std::string& name : cells.classes)
    if (data::sounds_like_no_label(name))
      log::warning("[finetune] '{}' is a class of '{}' like any other; --ignore-label '{}' leaves its cells out", name,
                   config.label, name);
  left_out(labelling.without_group, fmt::format("no '{}'", config.split_by));
  left_out(cells.without_genes, "fewer genes of the vocabulary than data.min_genes");
  left_out(split.rare_cells,
           fmt::format("their classes have fewer than 2 in a part: {}", first_of(split.rare_classes)));
  if (split.heldout_twins > 0) {
    log::warning(
        "[finetune] {} of {} held-out cells have exactly the tokens of a cell that is trained on: scores "
        "will be too good; "
        "are cells in the files twice, in other groups or with other labels?",
        grouped(split.heldout_twins), grouped(std::ssize(split.heldout)));
  }
  log::info(
      "[finetune] {} classes of '{}': {} cells to train on, {} held out{}; {:.1f} MB of tokens in memory",
      cells.classes.size(), config.label, grouped(std::ssize(split.training)),
      grouped(std::ssize(split.heldout)),
      split.held_groups.empty() ? "" : fmt::format(" ({} {})", config.split_by, first_of(split.held_groups)),
      static_cast<double>(cells.tokens.tokens.size()) * 4e-6);
}

LabelledCells read_cells(const train::Embedder& embedder, const Labelling& labelling) {
  PhaseProgress opening("cells");
  std::optional<ProgressBar> bar;
  return read_labelled_cells(
      embedder, labelling,
      [&](std::string_view phase, int64_t done, int64_t total) {
        if (stop_signal() != 0)
          throw Interrupted("stopped by signal {} before the first step; nothing was written", stop_signal());
        bar.reset();
        opening(phase, done, total);
      },
      [&](int64_t done, int64_t total) {
        opening.finish();
        if (!bar) bar.emplace("reading labelled cells", total, "cells", done);
        bar->update(done);
        return stop_signal() == 0;
      });
}

/// What the folder begins with: the encoder's configuration and vocabulary, as every run has them, and the
/// settings.
train::RunDirectory begin_folder(const FinetuneRequest& request, const train::TrainedModel& base,
                                 const std::string& settings) {
  train::RunDirectory directory = train::RunDirectory::create(request.out);
  try {
    write_file_atomically(directory.config(), base.config_text);
    write_file_atomically(directory.path() / "finetune.yaml", settings);
    base.vocabulary.save(directory.vocabulary());
    log::open_file(directory.log());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(directory.path(), ignored);
    throw;
  }
  return directory;
}

/// Bars and lines while it runs, and what is saved after an epoch.
class Run {
 public:
  Run(train::Embedder& embedder, const Labelling& labelling, const LabelledCells& cells, const Split& split,
      FinetuneResult& result)
      : embedder_(embedder),
        labelling_(labelling),
        cells_(cells),
        split_(split),
        result_(result),
        names_(heldout_names(cells, labelling, split)),
        metrics_(result.folder / "metrics.jsonl"),
        training_(embedder, cells, split, result.config) {}

  void operator()() {
    const double start = now_seconds();
    bool is_whole = false;
    try {
      is_whole = train(start);
    } catch (const NumericError& problem) {
      if (result_.best.epoch == 0) throw;
      finish(start, Ending::kDiverged);
      throw NumericError("{}; the best epoch before, {}, is kept in {}", problem.what(), result_.best.epoch,
                         result_.folder.string());
    }
    bar_.reset();
    if (result_.best.epoch == 0)
      throw Interrupted("stopped by signal {} before the first epoch was done; nothing was written",
                        stop_signal());
    finish(start, !is_whole                                              ? Ending::kSignal
                  : result_.epochs_done < result_.config.training.epochs ? Ending::kEarly
                                                                         : Ending::kLastEpoch);
  }

 private:
  bool train(double start) {
    return training_.run(
        {.keep_going = [this](int64_t done,
                              int64_t total) { return show("fine-tuning", "steps", done, total); },
         .keep_embedding = [this](int64_t done,
                                  int64_t total) { return show("embedding", "cells", done, total); },
         .on_epoch =
             [this, start](const Epoch& epoch) {
               result_.seconds = now_seconds() - start;
               take(epoch);
             }});
  }

  void finish(double start, Ending ending) {
    result_.seconds = now_seconds() - start;
    result_.ending = ending;
    write_results(result_, cells_, labelling_, split_, names_);
  }

  bool show(const char* what, const char* unit, int64_t done, int64_t total) {
    if (what_ != what) bar_.reset();
    what_ = what;
    if (!bar_) bar_.emplace(what, total, unit, done);
    bar_->update(done, note_);
    return stop_signal() == 0;
  }

  void take(const Epoch& epoch) {
    result_.epochs_done = epoch.epoch;
    metrics_.append(epoch_line(epoch));
    note_ = fmt::format("epoch {}  macro F1 {:.4f}", epoch.epoch, epoch.report.macro_f1);
    const std::string words = fmt::format(
        "[finetune] epoch {}: loss {:.4f}, held-out loss {:.4f}, accuracy {:.4f}, macro F1 {:.4f}{}",
        epoch.epoch, epoch.training_loss, epoch.heldout_loss, epoch.report.accuracy, epoch.report.macro_f1,
        epoch.is_best ? " (best)" : "");
    // Frozen epochs take a moment each, and there are hundreds.
    if (result_.config.frozen)
      log::debug("{}", words);
    else
      log::info("{}", words);
    if (epoch.is_best) save(epoch);
  }

  void save(const Epoch& epoch) {
    Classifier& classifier = result_.classifier;
    if (classifier.checkpoint.empty() || !result_.config.frozen) {
      const int64_t step = embedder_.model->step + (result_.config.frozen ? 0 : epoch.steps);
      save_encoder(result_.folder, *embedder_.encoder, *embedder_.model, step, classifier);
    }
    classifier.head = training_.head().weights();
    save_classifier(result_.folder, classifier);
    result_.best = epoch;
    write_results(result_, cells_, labelling_, split_, names_);
  }

  train::Embedder& embedder_;
  const Labelling& labelling_;
  const LabelledCells& cells_;
  const Split& split_;
  FinetuneResult& result_;
  std::vector<std::string> names_;
  LineAppender metrics_;
  ClassifierTraining training_;
  std::optional<ProgressBar> bar_;
  std::string what_, note_;
};

FinetuneResult first_result(const FinetuneRequest& request, const FinetuneConfig& config,
                            const train::Embedder& embedder, const Labelling& labelling,
                            const LabelledCells& cells, const Split& split) {
  const train::TrainedModel& base = *embedder.model;
  FinetuneResult result{.folder = request.out,
                        .config = config,
                        .classifier = {.label = config.label,
                                       .classes = cells.classes,
                                       .base = base.source.string(),
                                       .base_weights_sha256 = base.weights_sha256,
                                       .base_step = base.step,
                                       .settings = config::dump(config),
                                       .program = request.program},
                        .base_vocabulary_sha256 = base.vocabulary_sha256,
                        .device = embedder.encoder->device().is_cuda() ? "cuda" : "cpu",
                        .precision = embedder.encoder->compute_type() == at::kBFloat16 ? "bf16" : "fp32",
                        .file_cells = labelling.file_cells,
                        .unlabelled = labelling.unlabelled,
                        .ignored = labelling.ignored,
                        .without_group = labelling.without_group,
                        .without_genes = cells.without_genes,
                        .rare_cells = split.rare_cells,
                        .rare_classes = split.rare_classes,
                        .held_groups = split.held_groups,
                        .training_cells_of_class = std::vector<int64_t>(cells.classes.size()),
                        .training_cells = std::ssize(split.training),
                        .heldout_cells = std::ssize(split.heldout),
                        .heldout_twins = split.heldout_twins};
  for (const int64_t cell : split.training)
    ++result.training_cells_of_class[static_cast<std::size_t>(
        cells.cells[static_cast<std::size_t>(cell)].label)];
  return result;
}

}  // namespace

FinetuneResult finetune(const FinetuneRequest& request) {
  require_free(request.out);
  const Labelling labelling = read_labels(request.config);
  auto base = std::make_shared<const train::TrainedModel>(train::load_trained_model(request.checkpoint));
  const train::TrainConfig for_use = train::config_for_use(*base, request.assignments);
  train::Embedder embedder = train::make_embedder(
      std::move(base), for_use, {.tokens_per_pack = request.config.training.tokens_per_pack});
  const FinetuneConfig config = resolved(request.config, embedder.encoder->device().is_cuda());
  LabelledCells cells = read_cells(embedder, labelling);
  const Split split = split_cells(cells, labelling, config);
  tell_labels(labelling, cells, split, config);
  FinetuneResult result = first_result(request, config, embedder, labelling, cells, split);
  const train::RunDirectory directory = begin_folder(request, *embedder.model, result.classifier.settings);
  // Without an epoch that was saved there is nothing to keep.
  const auto clean_up = [&] {
    if (result.best.epoch > 0) return;
    log::close_file();
    std::error_code ignored;
    fs::remove_all(directory.path(), ignored);
  };
  try {
    Run(embedder, labelling, cells, split, result)();
  } catch (const c10::OutOfMemoryError&) {
    clean_up();
    throw DeviceError(
        "the GPU's memory is full; lower --tokens-per-pack (now {}), keep less for the backward pass "
        "(--recompute block), or "
        "train the head alone (--frozen)",
        config.training.tokens_per_pack);
  } catch (...) {
    clean_up();
    throw;
  }
  return result;
}

}  // namespace scrna::finetune
