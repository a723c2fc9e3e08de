// scrna-train annotate: lib/finetune/annotate_file.h from the command line, for one file or many.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/commands.h"
#include "apps/scrna_train/output_files.h"
#include "apps/scrna_train/wait_policy.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"
#include "lib/finetune/annotate_file.h"

namespace scrna::app {
namespace {

namespace fs = std::filesystem;

struct AnnotateCommand : CopyOptions {
  std::string checkpoint;
  std::string key;  // empty: scrna_<label>
  int64_t tokens_per_pack = 0;
};

// Before the first cell: what would go wrong after hours. True when the output of exactly this is there.
bool is_done(const AnnotateCommand& command, const finetune::Annotator& annotator,
             const data::AnnotationTarget& target) {
  if (command.force || !fs::exists(target.output)) return false;
  const auto found = data::read_annotation_settings(target.output, target.key);
  if (found && *found == finetune::settings_of(annotator, target.input)) return true;
  throw ConfigError("{}: exists already{}; choose another name, or replace it with --force",
                    target.output.string(), found ? ", with classes by another model, file or settings" : "");
}

finetune::Annotator prepare(const AnnotateCommand& command) {
  finetune::FinetunedModel model = finetune::load_finetuned(command.checkpoint);
  const train::TrainConfig config = train::config_for_use(*model.encoder, command.assignments());
  return finetune::make_annotator(std::move(model), config, command.tokens_per_pack);
}

std::string summary(const finetune::Annotator& annotator, const data::AnnotationTarget& target,
                    const finetune::AnnotateReport& report) {
  const auto& classes = annotator.model.classifier.classes;
  const auto computed = static_cast<double>(report.cells - report.resumed_cells);
  std::string text =
      fmt::format("{}: {} cells in obs['{}'], mean probability {:.3f}; {:.1f} s, {:.1f} cells/s\n",
                  target.output.string(), grouped(report.cells), target.key, report.counts.mean_probability,
                  report.seconds, computed / std::max(report.seconds, 1e-9));
  std::vector<std::size_t> order(classes.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) {
    return report.counts.cells_of_class[a] > report.counts.cells_of_class[b];
  });
  for (const std::size_t index : order)
    if (report.counts.cells_of_class[index] > 0)
      text += fmt::format("  {:>10}  {}\n", grouped(report.counts.cells_of_class[index]), classes[index]);
  if (report.counts.missing > 0)
    text += fmt::format("  {:>10}  none: they express fewer than {} genes of the vocabulary\n",
                        grouped(report.counts.missing), annotator.embedder.config.data.min_genes);
  return text;
}

ExitCode annotate_one(const AnnotateCommand& command, const finetune::Annotator& annotator,
                      const data::AnnotationTarget& target) {
  if (is_done(command, annotator, target)) {
    print_finished_before(target.output);
    return ExitCode::kDone;
  }
  finetune::AnnotateReport report;
  const ExitCode code = write_copy({target.input, target.output}, "annotating", "annotated",
                                   [&](const auto& opening, const auto& keep_going) {
                                     report = finetune::annotate_file(annotator, target, program_version(),
                                                                      opening, keep_going);
                                     return report.is_finished;
                                   });
  if (code == ExitCode::kDone) print(summary(annotator, target, report));
  return code;
}

ExitCode annotate(const AnnotateCommand& command) {
  if (command.tokens_per_pack < 0)
    throw ConfigError("command line: --tokens-per-pack: expected a number from 0, got {}",
                      command.tokens_per_pack);
  const std::vector<CopiedFile> files =
      copied_files(command, "annotate",
                   "scrna-train annotate --checkpoint FINETUNED --out cells.annotated.h5ad cells.h5ad");
  wait_without_spinning();
  install_stop_signal_handlers();
  const finetune::Annotator annotator = prepare(command);
  std::vector<data::AnnotationTarget> targets;
  for (const CopiedFile& file : files) {
    targets.push_back(
        {.input = file.input,
         .output = file.output,
         .key = command.key.empty() ? finetune::default_key(annotator.model.classifier) : command.key});
    data::check_annotation_target(targets.back());
  }
  for (const data::AnnotationTarget& target : targets) is_done(command, annotator, target);
  for (const data::AnnotationTarget& target : targets) {
    const ExitCode code = annotate_one(command, annotator, target);
    if (code != ExitCode::kDone) return code;
  }
  return ExitCode::kDone;
}

}  // namespace

void add_annotate(Program& program) {
  auto command = std::make_shared<AnnotateCommand>();
  CLI::App& app = add_command(
      program, "annotate",
      "writes the class of every cell, as a fine-tuned model sees it, into a copy of the cells' file: "
      "obs['scrna_<label>'] and "
      "obs['scrna_<label>_probability'], the probabilities of all classes in "
      "obsm['scrna_<label>_probabilities'] with their "
      "names in uns['scrna_<label>']. Everything else of the file stays as it is. Interrupted, the same "
      "command goes on where "
      "it was.",
      {{"scrna-train annotate --checkpoint runs/types --out cells.annotated.h5ad cells.h5ad",
        "runs/types: what scrna-train finetune wrote; then in Python: adata.obs['scrna_cell_type']"},
       {"scrna-train annotate --checkpoint runs/types --out-dir annotated 'atlas/*.h5ad'", "many files"},
       {"scrna-train annotate --checkpoint runs/types --key second --out b.h5ad a.h5ad",
        "under other names: obs['second'], obs['second_probability'] ..."}},
      [command] { return annotate(*command); });
  app.add_option("--checkpoint", command->checkpoint, "the model: a folder that scrna-train finetune wrote")
      ->required()
      ->type_name("FOLDER");
  add_copy_options(app, *command);
  app.add_option("--key", command->key, "name in obs and uns, and the beginning of the other two names")
      ->default_str("scrna_<label>")
      ->type_name("NAME");
  app.add_option("--tokens-per-pack", command->tokens_per_pack,
                 "tokens of one forward pass, at most; 0: 65,536 on a GPU, 8,192 on the CPU")
      ->type_name("N")
      ->default_str("0");
}

}  // namespace scrna::app
