// scrna-train evaluate: the metrics of lib/eval for models and for embeddings that stand in .h5ad files, beside the
// baseline without a model, on one data set after the other. The table goes to standard output, everything to --out.
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/evaluate_inputs.h"
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
  DataSetWords data;
  ModelWords model_words;
  std::vector<std::string> embeddings;
  std::string matrix = "auto";
  std::string out;
  bool without_umap = false;
  int num_threads = 0;
  ModelChoice models;
  eval::EvaluationOptions options;
};

/// Calls of evaluate_embedding() with a part's name, without and with labels; the picture is one more.
constexpr int64_t kPartsWithLabels = 7, kPartsWithoutLabels = 3;
constexpr const char* kBaseline = "PCA of counts";

void check(const EvaluateCommand& command) {
  const auto at_least = [](const char* flag, int64_t value, int64_t least) {
    if (value < least) throw ConfigError("command line: {}: expected a number from {}, got {}", flag, least, value);
  };
  at_least("--max-cells", command.data.common.max_cells, 0);
  at_least("--min-label-cells", command.data.common.min_label_cells, command.options.num_folds);
  at_least("--neighbors", command.options.num_neighbours, 2);
  at_least("--mmd-cells", command.options.separation.max_label_cells, 2);
  at_least("--bootstraps", command.options.separation.num_resamples, 2);
  at_least("--maskings", command.models.num_maskings, 0);
  at_least("--threads", command.num_threads, 0);
}

/// The key, or with another file's embedding, file and key.
std::string name_of(const eval::EmbeddingPlace& place) {
  return place.file.empty() ? place.key : place.file.stem().string() + ":" + place.key;
}

std::vector<eval::EmbeddingPlace> places_of(const EvaluateCommand& command, std::size_t num_files) {
  std::vector<eval::EmbeddingPlace> places;
  for (const std::string& text : command.embeddings) {
    places.push_back(eval::parse_embedding_place(text));
    if (num_files > 1 && !places.back().file.empty())
      throw ConfigError("--embedding {}: with several data files, only KEY of their own obsm; evaluate them in runs of their own",
                        text);
  }
  return places;
}

std::vector<eval::NamedEmbedding> read_embeddings(const EvaluateCommand& command, const data::AnnDataFile& file,
                                                  const std::vector<eval::EmbeddingPlace>& places,
                                                  const std::vector<int64_t>& cells) {
  std::vector<eval::NamedEmbedding> out;
  for (const eval::EmbeddingPlace& place : places) out.push_back({name_of(place), eval::read_embedding(file, place, cells)});
  if (places.empty() && command.models.checkpoints.empty()) {
    const std::vector<std::string> keys = data::obsm_keys(file.path());
    log::info("[evaluate] neither --checkpoint nor --embedding: the baseline alone; obsm of {} holds {}", file.path().string(),
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
    log::warning("[evaluate] {}: no baseline: {}; name a matrix of counts with --matrix", file.path().string(), baseline.problem);
    return;
  }
  words = fmt::format("{} principal components of {} of {}", baseline.scores->width,
                      baseline.was_normalised ? "the values (log-normalised already)" : "log-normalised counts", baseline.matrix);
  embeddings.insert(embeddings.begin(), {kBaseline, std::move(*baseline.scores)});
}

/// Columns are told apart by their names.
void require_distinct_names(const ModelChoice& models, const std::vector<eval::EmbeddingPlace>& places) {
  std::set<std::string> names = {kBaseline};
  const auto add = [&](const std::string& name) {
    if (!names.insert(name).second)
      throw ConfigError("two of the baseline, embeddings and checkpoints would both be called '{}'; evaluate them in two runs, or "
                        "name a checkpoint otherwise with --name", name);
  };
  for (const eval::EmbeddingPlace& place : places) add(name_of(place));
  for (const NamedCheckpoint& model : models.checkpoints) {
    add(model.name);
    add(untrained_name(model.name));
  }
}

/// Mistakes that would show after the first model or data set was measured. One model of one file is measured at once.
void check_before_work(const EvaluateCommand& command, const std::vector<DataSet>& sets,
                       const std::vector<eval::EmbeddingPlace>& places) {
  require_distinct_names(command.models, places);
  if (!command.out.empty()) eval::make_results_folder(command.out);
  for (const DataSet& set : sets)
    for (const eval::EmbeddingPlace& place : places)
      if (place.file.empty()) data::require_obsm(set.file, place.key);
  if (sets.size() * command.models.checkpoints.size() > 1) check_models(command.models, sets);
}

/// A value of --exclude-label that was not tied to a file is excluded where it is; nowhere is a mistake, which
/// eval::choose_cells() words.
void place_excluded_labels(std::vector<DataSet>& sets) {
  std::map<std::string, DataSet*> nowhere;
  std::set<std::string> found;
  for (DataSet& set : sets) {
    if (set.excluded_if_there.empty()) continue;
    const std::vector<std::string> values = data::AnnDataFile(set.file).obs_categories(set.choice.label).categories;
    for (const std::string& value : set.excluded_if_there) {
      nowhere.emplace(value, &set);
      if (std::find(values.begin(), values.end(), value) == values.end()) continue;
      set.choice.excluded_labels.push_back(value);
      found.insert(value);
    }
  }
  for (const auto& [value, set] : nowhere)
    if (!found.contains(value)) set->choice.excluded_labels.push_back(value);
}

void require_enough_cells(const eval::DataSetReport& set, const eval::EvaluationOptions& options) {
  try {
    eval::require_enough_cells(std::ssize(set.cells.cells), set.has_labels() ? &set.cells.labels : nullptr, options);
  } catch (const DataError& problem) {
    throw DataError("{}: {}", set.file, problem.what());
  }
}

/// Cells, labels and batches of every file: what is wrong with one of them is said before anything is computed.
eval::EvaluationReport choose_all(const std::vector<DataSet>& sets, const eval::EvaluationOptions& options) {
  eval::EvaluationReport report;
  report.options = options;
  for (const DataSet& set : sets) {
    const data::AnnDataFile file(set.file);
    eval::DataSetReport& out = report.data_sets.emplace_back();
    out.name = set.name;
    out.file = set.file;
    out.choice = set.choice;
    out.cells = eval::choose_cells(file, set.choice);
    if (!out.has_labels())
      log::warning("[evaluate] {}: without labels (--no-label): only masked loss, components, numbers of clusters, batch mixing and "
                   "pictures", set.file);
    require_enough_cells(out, options);
  }
  return report;
}

eval::Evaluation measure(const eval::NamedEmbedding& embedding, const eval::DataSetReport& set,
                         const eval::EvaluationOptions& options) {
  const double start = now_seconds();
  const eval::Labels* batches = set.cells.batches ? &*set.cells.batches : nullptr;
  const int64_t parts = (set.has_labels() ? kPartsWithLabels : kPartsWithoutLabels) + (options.with_umap ? 1 : 0);
  ProgressBar bar(fmt::format("metrics, {}, {}", set.name, embedding.name), parts, "parts");
  int64_t begun = 0;
  const eval::PartBegins begins = [&](std::string_view part) {
    if (stop_signal() != 0) throw Interrupted("stopped by signal {} during the evaluation; nothing was written", stop_signal());
    bar.update(begun++, part);
  };
  eval::Evaluation out =
      set.has_labels() ? eval::evaluate_embedding(embedding.name, embedding.values, set.cells.labels, batches, options, begins)
                       : eval::evaluate_unlabelled(embedding.name, embedding.values, batches, options, begins);
  bar.finish();
  std::string text;
  for (const auto& [part, seconds] : out.seconds) text += fmt::format("{}{} {:.1f} s", text.empty() ? "" : ", ", part, seconds);
  log::info("[evaluate] {}, {}: {} cells x {} in {} ({})", set.name, embedding.name, grouped(embedding.values.cells),
            embedding.values.width, clock_text(now_seconds() - start), text);
  return out;
}

/// Everything about one data set whose cells are chosen.
void evaluate_set(const EvaluateCommand& command, const std::vector<eval::EmbeddingPlace>& places,
                  const eval::EvaluationOptions& options, eval::DataSetReport& set) {
  const data::AnnDataFile file(set.file);
  std::vector<eval::NamedEmbedding> embeddings = read_embeddings(command, file, places, set.cells.cells);
  std::map<std::string, EvaluatedModel> models;  // by name of the embedding, which is moved out of them
  for (EvaluatedModel& model : evaluate_models(command.models, set.file, set.cells.cells)) {
    embeddings.push_back({model.embedding.name, eval::rows_of(model.embedding.values, set.cells.cells)});
    model.embedding.values = {};
    models.emplace(model.embedding.name, std::move(model));
  }
  eval::leave_out_missing(set.cells, embeddings, set.choice);
  require_enough_cells(set, options);
  const std::vector<std::string> names = file.obs_index();
  for (const int64_t cell : set.cells.cells) set.cell_names.push_back(names[cell]);
  add_baseline(command, file, set.cells.cells, embeddings, set.baseline);
  if (embeddings.empty()) throw DataError("{}: neither an embedding (--embedding) nor counts for the baseline", set.file);
  for (const eval::NamedEmbedding& embedding : embeddings) {
    eval::Evaluation& out = set.evaluations.emplace_back(measure(embedding, set, options));
    const auto model = models.find(embedding.name);
    if (model == models.end()) continue;
    out.group = model->second.group;
    out.loss = model->second.loss;
  }
}

ExitCode evaluate(EvaluateCommand command) {
  check(command);
  if (command.num_threads > 0) eval::use_threads(command.num_threads);
  std::vector<DataSet> sets = data_sets_of(command.data);
  command.models.checkpoints = checkpoints_of(command.model_words);
  const std::vector<eval::EmbeddingPlace> places = places_of(command, sets.size());
  place_excluded_labels(sets);
  eval::EvaluationOptions options = command.options;
  options.seed = command.data.common.seed;
  options.with_umap = !command.without_umap && !command.out.empty();
  eval::EvaluationReport report = choose_all(sets, options);
  report.program = program_version();
  for (const NamedCheckpoint& model : command.models.checkpoints) report.models.push_back({model.name, model.group, model.path});
  check_before_work(command, sets, places);
  for (eval::DataSetReport& set : report.data_sets) evaluate_set(command, places, report.options, set);
  print(eval::evaluation_table(report));
  if (!command.out.empty()) {
    eval::write_evaluation(command.out, report);
    evaluation_page(report).write(std::filesystem::path(command.out) / "report.html");
  }
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
       {"scrna-train evaluate --group sigmoid=runs/sig-1,runs/sig-2 --group softmax=runs/soft-1,runs/soft-2 --label cell_type "
        "--label B.h5ad:celltype --out results A.h5ad B.h5ad",
        "two data sets with columns of their own; two seeds of each model, told as mean and standard deviation"},
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
  app.add_option("DATA.h5ad", command->data.files,
                 "cells with their labels in obs, and counts for the baseline; several files are measured one after the other")
      ->required()
      ->type_name("DATA.h5ad ...");
  app.add_option("--label", command->data.labels,
                 "obs column with what the embedding should know: the cell type; FILE:COLUMN for one of several files; repeatable")
      ->type_name("[FILE:]COLUMN")
      ->allow_extra_args(false);
  app.add_option("--no-label", command->data.unlabelled,
                 "a file without cell types: only masked loss, components, numbers of clusters, batch mixing, pictures; repeatable")
      ->type_name("FILE")
      ->allow_extra_args(false);
  app.add_option("--batch", command->data.batches,
                 "obs column with what it should not: donor, assay, lab; FILE:COLUMN for one of several files; repeatable")
      ->type_name("[FILE:]COLUMN")
      ->allow_extra_args(false);
  app.add_option("--embedding", command->embeddings,
                 "KEY of obsm of every data file, or FILE.h5ad:obsm/KEY of a file with the same obs_names; repeatable")
      ->type_name("KEY")
      ->allow_extra_args(false);
  app.add_option("--checkpoint", command->model_words.checkpoints,
                 "a model: run directory, checkpoint folder or exported file; repeatable")
      ->type_name("PATH")
      ->allow_extra_args(false);
  app.add_option("--name", command->model_words.names, "of a --checkpoint in the tables, one for each in their order; repeatable")
      ->type_name("NAME")
      ->allow_extra_args(false);
  app.add_option("--group", command->model_words.groups,
                 "runs that differ in their seed alone: each is measured, and mean and standard deviation stand beside; repeatable")
      ->type_name("NAME=PATH,PATH...")
      ->allow_extra_args(false);
  app.add_option("--maskings", command->models.num_maskings, "independent maskings of each cell for the masked loss; 0: no loss")
      ->type_name("N")
      ->default_str("15");
  app.add_option("--device", command->models.device, "of the models: cpu, cuda or cuda:N")->type_name("DEVICE")->default_str("auto");
  app.add_option("--precision", command->models.precision, "of the models: fp32 or bf16")->type_name("TYPE")->default_str("auto");
  app.add_option("--exclude-label", command->data.excluded_labels,
                 "a value that is no cell type, in every file that has it, or in FILE; repeatable")
      ->type_name("[FILE:]VALUE")
      ->allow_extra_args(false);
  app.add_option("--min-label-cells", command->data.common.min_label_cells, "labels with fewer cells are left out, and named")
      ->type_name("N")
      ->default_str("10");
  app.add_option("--max-cells", command->data.common.max_cells, "random sample of so many cells; 0: all")
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
  app.add_option("--out", command->out, "folder for report.html, evaluation.json, metrics.csv, groups.csv, leiden.csv, mmd.csv, umap.csv")
      ->type_name("FOLDER");
  app.add_option("--set", command->models.overrides,
                 "how the models read files, over their own settings, for example data.gene_map=aliases.tsv, data.min_genes=1; "
                 "repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.add_flag("--no-umap", command->without_umap, "no pictures: nothing else depends on them");
  app.add_option("--seed", command->data.common.seed, "of samples, folds, Leiden, bootstrap and UMAP")
      ->type_name("N")
      ->default_str("0");
  app.add_option("--threads", command->num_threads, "threads that compute; 0: one per core")
      ->type_name("N")
      ->default_str("0");
}

}  // namespace scrna::app
