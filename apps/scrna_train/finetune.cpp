// scrna-train finetune: lib/finetune/finetune.h from the command line. Its page is written here.
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/fields.h"
#include "apps/scrna_train/finetune_page.h"
#include "apps/scrna_train/wait_policy.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"
#include "lib/data/cell_source.h"
#include "lib/finetune/finetune.h"

namespace scrna::app {
namespace {

struct FinetuneCommand {
  std::vector<std::string> files;
  std::string checkpoint, out;
  std::string device, precision;  // empty: auto
  std::vector<std::string> overrides;
  finetune::FinetuneConfig config;
};

std::string summary(const finetune::FinetuneResult& result) {
  const finetune::ClassificationReport& scores = result.best.report;
  std::string text = fmt::format(
      "{}: {} classes of '{}', {} trained on {} cells in {}\n"
      "  held-out accuracy  {:.4f}  on {} cells (the most frequent class for all: {:.4f})\n"
      "  held-out macro F1  {:.4f}  epoch {} of {}{}; weighted F1 {:.4f}\n",
      result.folder.string(), scores.classes.size(), result.config.label,
      result.config.frozen ? "the head alone" : "encoder and head", grouped(result.training_cells),
      clock_text(result.seconds), scores.accuracy, grouped(scores.cells), scores.majority_accuracy, scores.macro_f1,
      result.best.epoch, result.epochs_done,
      result.ending == finetune::Ending::kEarly ? ", ended early: none after it was better" : "", scores.weighted_f1);
  text += finetune::per_class_table(scores);
  text += fmt::format("  {}   confusion matrix and classes; also finetune.json, *.csv\n"
                      "  next: scrna-train annotate --checkpoint {} --out cells.annotated.h5ad cells.h5ad\n",
                      (result.folder / "report.html").string(), result.folder.string());
  return text;
}

ExitCode run(const FinetuneCommand& command, const finetune::TrainingSettings& training) {
  if (command.files.empty()) {
    throw ConfigError("no input; name one or more labelled .h5ad files, for example: scrna-train finetune --checkpoint RUN "
                      "--label cell_type --out runs/types cells.h5ad");
  }
  wait_without_spinning();
  install_stop_signal_handlers();
  finetune::FinetuneRequest request{.checkpoint = command.checkpoint,
                                    .out = command.out,
                                    .config = command.config,
                                    .assignments = command.overrides,
                                    .program = program_version()};
  request.config.training = training;
  for (const std::filesystem::path& file : data::resolve_files(command.files))
    request.config.files.push_back(file.string());
  if (!command.device.empty()) request.assignments.push_back("train.device=" + command.device);
  if (!command.precision.empty()) request.assignments.push_back("train.precision=" + command.precision);
  const finetune::FinetuneResult result = finetune::finetune(request);
  finetune_page(result).write(result.folder / "report.html");
  print(summary(result));
  if (result.ending != finetune::Ending::kSignal) return ExitCode::kDone;
  print(fmt::format("  stopped by signal {} after epoch {}; the best epoch so far is saved and can be used as it is. It cannot "
                    "be resumed: to train to the end, give the same command another --out\n",
                    stop_signal(), result.epochs_done));
  return ExitCode::kSavedAfterSignal;
}

}  // namespace

void add_finetune(Program& program) {
  auto command = std::make_shared<FinetuneCommand>();
  auto training = std::make_shared<finetune::TrainingSettings>();
  CLI::App& app = add_command(
      program, "finetune",
      "teaches a trained model to name cells: a classification head over the mean of each cell's tokens, with the encoder "
      "(the default) or on top of it as it is (--frozen). Part of the labelled cells is held out; the epoch with the best "
      "macro F1 there is kept. Writes a folder that annotate takes, and that embed, evaluate and export take as any other.",
      {{"scrna-train finetune --checkpoint runs/first --label cell_type --frozen --out runs/types cells.h5ad",
        "the head alone: minutes on a CPU; then: scrna-train annotate --checkpoint runs/types ..."},
       {"scrna-train finetune --checkpoint runs/first --label cell_type --split-by donor --out runs/types 'atlas/*.h5ad'",
        "all weights; whole donors held out, so that the scores hold for new ones"},
       {"scrna-train finetune --checkpoint runs/first --label cell_type --ignore-label unlabelled --drop-rare-classes "
        "--class-weights balanced --out runs/types cells.h5ad",
        "without the cells of one label and classes of fewer than 4 cells; rare classes count as much as frequent ones"}},
      [command, training] { return run(*command, *training); });
  app.add_option("TRAIN.h5ad", command->files, ".h5ad files or patterns, with raw counts and labels")
      ->type_name("TRAIN.h5ad ...");
  app.add_option("--checkpoint", command->checkpoint,
                 "the model: a run directory (its newest checkpoint), a checkpoint folder, or an exported file")
      ->required()
      ->type_name("PATH");
  app.add_option("--label", command->config.label, "obs column with the classes")->required()->type_name("COLUMN");
  app.add_option("--out", command->out, "folder to make; must not exist")->required()->type_name("FOLDER");
  app.add_flag("--frozen", command->config.frozen,
               "train the head alone, on embeddings computed once; the encoder stays as it is");
  app.add_option("--split-by", command->config.split_by,
                 "obs column (donor, batch) whose groups are held out whole; without it cells of every class are")
      ->type_name("COLUMN");
  app.add_option("--ignore-label", command->config.ignored_labels, "a value that is no class; repeatable")
      ->type_name("VALUE")
      ->allow_extra_args(false);
  app.add_flag("--drop-rare-classes", command->config.drop_rare_classes,
               "leave out classes with fewer than 2 cells to train on or held out, which are an error otherwise");
  add_fields(app, training);
  app.add_option("--device", command->device, "auto (a GPU if there is one), cpu or cuda")->type_name("NAME");
  app.add_option("--precision", command->precision, "of products: auto (bf16 on a GPU, fp32 on the CPU), fp32 or bf16")
      ->type_name("NAME");
  app.add_option("--set", command->overrides,
                 "how files are read or products computed, over the model's own settings, for example "
                 "data.matrix=layers/counts; repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

}  // namespace scrna::app
