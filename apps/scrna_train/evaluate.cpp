// scrna-train evaluate: the metrics of lib/eval for embeddings that stand in .h5ad files, beside the baseline without a
// model. The table goes to standard output, everything to --out.
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/evaluate_models.h"
#include "apps/scrna_train/evaluate_page.h"
#include "apps/scrna_train/wait_policy.h"
#include "lib/core/clock.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"
#include "lib/data/obsm.h"
#include "lib/eval/dense.h"
#include "lib/eval/evaluation.h"
#include "lib/eval/evaluation_data.h"
#include "lib/eval/evaluation_files.h"

namespace scrna::app {
namespace {

struct EvaluateCommand {
  std::string file;
  std::vector<std::string> embeddings;
  std::string matrix = "auto";
  std::string out;
  bool without_umap = false;
  int num_threads = 0;
  ModelChoice models;
  eval::CellChoice choice;
  eval::EvaluationOptions options;
};

void check(const EvaluateCommand& command) {
  const auto at_least = [](const char* flag, int64_t value, int64_t least) {
    if (value < least) throw ConfigError("command line: {}: expected a number from {}, got {}", flag, least, value);
  };
  at_least("--max-cells", command.choice.max_cells, 0);
  at_least("--min-label-cells", command.choice.min_label_cells, command.options.num_folds);
  at_least("--neighbors", command.options.num_neighbours, 2);
  at_least("--mmd-cells", command.options.separation.max_label_cells, 2);
  at_least("--bootstraps", command.options.separation.num_resamples, 2);
  at_least("--maskings", command.models.num_maskings, 0);
  at_least("--threads", command.num_threads, 0);
}

/// The key, or with more than one file of that key, file and key.
std::string name_of(const eval::EmbeddingPlace& place) {
  return place.file.empty() ? place.key : place.file.stem().string() + ":" + place.key;
}

std::vector<eval::NamedEmbedding> read_embeddings(const EvaluateCommand& command, const data::AnnDataFile& file,
                                            const std::vector<int64_t>& cells) {
  std::vector<eval::NamedEmbedding> out;
  for (const std::string& text : command.embeddings) {
    const eval::EmbeddingPlace place = eval::parse_embedding_place(text);
    out.push_back({name_of(place), eval::read_embedding(file, place, cells)});
  }
  if (command.embeddings.empty() && command.models.checkpoints.empty()) {
    const std::vector<std::string> keys = data::obsm_keys(command.file);
    log::info("[evaluate] neither --checkpoint nor --embedding: the baseline alone; obsm of {} holds {}", command.file,
              keys.empty() ? "nothing" : fmt::format("{}", fmt::join(keys, ", ")));
  }
  return out;
}

/// The baseline as an embedding, first of all; what it is goes into `words`.
void add_baseline(const EvaluateCommand& command, const data::AnnDataFile& file, const std::vector<int64_t>& cells,
                  std::vector<eval::NamedEmbedding>& embeddings, std::string& words) {
  eval::Baseline baseline = eval::make_baseline(file, command.matrix, cells);
  if (!baseline.scores) {
    words = "none, " + baseline.problem;
    log::warning("[evaluate] {}: no baseline: {}; name a matrix of counts with --matrix", command.file, baseline.problem);
    return;
  }
  words = fmt::format("{} principal components of {} of {}", baseline.scores->width,
                      baseline.was_normalised ? "the values (log-normalised already)" : "log-normalised counts", baseline.matrix);
  embeddings.insert(embeddings.begin(), {"PCA of counts", std::move(*baseline.scores)});
}

/// Columns are told apart by their names.
void require_distinct_names(const std::vector<eval::NamedEmbedding>& embeddings) {
  std::set<std::string> names;
  for (const eval::NamedEmbedding& embedding : embeddings)
    if (!names.insert(embedding.name).second)
      throw ConfigError("two of the embeddings and checkpoints would both be called '{}'; evaluate them in two runs, or name one of "
                        "them otherwise", embedding.name);
}

ExitCode evaluate(const EvaluateCommand& command) {
  check(command);
  if (command.num_threads > 0) eval::use_threads(command.num_threads);
  const data::AnnDataFile file(command.file);
  eval::EvaluationReport report;
  report.file = command.file;
  report.program = program_version();
  report.choice = command.choice;
  report.options = command.options;
  report.options.seed = command.choice.seed;
  report.options.with_umap = !command.without_umap && !command.out.empty();
  report.cells = eval::choose_cells(file, command.choice);
  std::vector<eval::NamedEmbedding> embeddings = read_embeddings(command, file, report.cells.cells);
  std::map<std::string, eval::MaskedLoss> losses;  // by name of the embedding
  for (EvaluatedModel& model : evaluate_models(command.models, command.file, report.cells.cells)) {
    if (model.loss) losses[model.embedding.name] = *model.loss;
    embeddings.push_back({model.embedding.name, eval::rows_of(model.embedding.values, report.cells.cells)});
  }
  require_distinct_names(embeddings);
  eval::leave_out_missing(report.cells, embeddings, command.choice);
  const std::vector<std::string> names = file.obs_index();
  for (const int64_t cell : report.cells.cells) report.cell_names.push_back(names[cell]);
  add_baseline(command, file, report.cells.cells, embeddings, report.baseline);
  if (embeddings.empty()) throw DataError("{}: neither an embedding (--embedding) nor counts for the baseline", command.file);
  const eval::Labels* batches = report.cells.batches ? &*report.cells.batches : nullptr;
  for (const eval::NamedEmbedding& embedding : embeddings) {
    const double start = now_seconds();
    report.evaluations.push_back(eval::evaluate_embedding(
        embedding.name, embedding.values, report.cells.labels, batches, report.options, [&](std::string_view part) {
          if (stop_signal() != 0)
            throw Interrupted("stopped by signal {} during the evaluation; nothing was written", stop_signal());
          log::debug("[evaluate] {}: {}", embedding.name, part);
        }));
    if (const auto loss = losses.find(embedding.name); loss != losses.end()) report.evaluations.back().loss = loss->second;
    std::string parts;
    for (const auto& [part, seconds] : report.evaluations.back().seconds)
      parts += fmt::format("{}{} {:.1f} s", parts.empty() ? "" : ", ", part, seconds);
    log::info("[evaluate] {}: {} cells x {} in {} ({})", embedding.name, grouped(embedding.values.cells),
              embedding.values.width, clock_text(now_seconds() - start), parts);
  }
  if (!command.out.empty()) {
    eval::write_evaluation(command.out, report);
    evaluation_page(report).write(std::filesystem::path(command.out) / "report.html");
  }
  print(eval::evaluation_table(report));
  return ExitCode::kDone;
}

}  // namespace

void add_evaluate(Program& program) {
  auto command = std::make_shared<EvaluateCommand>();
  CLI::App& app = add_command(
      program, "evaluate",
      "measures what models and embeddings of cells know of their labels: masked loss, silhouettes, Leiden clusters with NMI "
      "and ARI, kNN and "
      "linear-probe accuracy, MMD of all pairs of labels, and with --batch how well batches are mixed. Beside them always "
      "the baseline without a model, principal components of log-normalised counts, and of each checkpoint the same model untrained.",
      {{"scrna-train evaluate --label cell_type cells.h5ad", "the baseline alone"},
       {"scrna-train evaluate --checkpoint runs/sigmoid --checkpoint runs/softmax --label cell_type --out results cells.h5ad",
        "two models side by side, on cells that neither was trained on"},
       {"scrna-train evaluate --label cell_type --embedding X_scVI --embedding X_pca cells.h5ad",
        "matrices that stand in obsm of the same file"},
       {"scrna-train evaluate --label cell_type --batch donor --embedding embedded.h5ad:obsm/X_scrna --out results cells.h5ad",
        "of another file with the same obs_names; a page, JSON, CSV and UMAP places in results/"},
       {"scrna-train evaluate --label cell_type --exclude-label unlabelled --max-cells 20000 cells.h5ad",
        "without the cells of one label; a random sample of the others"}},
      [command] {
        wait_without_spinning();
        install_stop_signal_handlers();
        return evaluate(*command);
      });
  app.add_option("DATA.h5ad", command->file, "cells with their labels in obs, and counts for the baseline")
      ->required()
      ->type_name("DATA.h5ad");
  app.add_option("--label", command->choice.label, "obs column with what the embedding should know: the cell type")
      ->required()
      ->type_name("COLUMN");
  app.add_option("--batch", command->choice.batch, "obs column with what it should not: donor, assay, lab")
      ->type_name("COLUMN");
  app.add_option("--embedding", command->embeddings,
                 "KEY of obsm, or FILE.h5ad:obsm/KEY of a file with the same obs_names; repeatable")
      ->type_name("KEY")
      ->allow_extra_args(false);
  app.add_option("--checkpoint", command->models.checkpoints,
                 "a model: run directory, checkpoint folder or exported file; repeatable")
      ->type_name("PATH")
      ->allow_extra_args(false);
  app.add_option("--maskings", command->models.num_maskings, "independent maskings of each cell for the masked loss; 0: no loss")
      ->type_name("N")
      ->default_str("15");
  app.add_option("--device", command->models.device, "of the models: cpu, cuda or cuda:N")->type_name("DEVICE")->default_str("auto");
  app.add_option("--precision", command->models.precision, "of the models: fp32 or bf16")->type_name("TYPE")->default_str("auto");
  app.add_option("--exclude-label", command->choice.excluded_labels, "a value that is no cell type; repeatable")
      ->type_name("VALUE")
      ->allow_extra_args(false);
  app.add_option("--min-label-cells", command->choice.min_label_cells, "labels with fewer cells are left out, and named")
      ->type_name("N")
      ->default_str("10");
  app.add_option("--max-cells", command->choice.max_cells, "random sample of so many cells; 0: all")
      ->type_name("N")
      ->default_str("0");
  app.add_option("--mmd-cells", command->options.separation.max_label_cells, "cells of each label for MMD; more are sampled")
      ->type_name("N")
      ->default_str("2000");
  app.add_option("--bootstraps", command->options.separation.num_resamples, "resamples for the intervals of MMD")
      ->type_name("N")
      ->default_str("1000");
  app.add_option("--neighbors", command->options.num_neighbours, "neighbours of a cell, itself counted")
      ->type_name("N")
      ->default_str("15");
  app.add_option("--matrix", command->matrix, "counts of the baseline: X, raw/X, layers/NAME or auto")
      ->type_name("MATRIX")
      ->default_str("auto");
  app.add_option("--out", command->out, "folder for report.html, evaluation.json, metrics.csv, leiden.csv, mmd.csv, umap.csv")
      ->type_name("FOLDER");
  app.add_flag("--no-umap", command->without_umap, "no pictures: nothing else depends on them");
  app.add_option("--seed", command->choice.seed, "of samples, folds, Leiden, bootstrap and UMAP")
      ->type_name("N")
      ->default_str("0");
  app.add_option("--threads", command->num_threads, "threads that compute; 0: one per core")
      ->type_name("N")
      ->default_str("0");
}

}  // namespace scrna::app
