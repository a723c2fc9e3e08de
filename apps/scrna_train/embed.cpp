// scrna-train embed: lib/train/embed_file.h from the command line, for one file or many.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/fields.h"
#include "apps/scrna_train/output_files.h"
#include "apps/scrna_train/wait_policy.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"
#include "lib/train/embed_file.h"

namespace scrna::app {
namespace {

namespace fs = std::filesystem;

struct EmbedCommand : CopyOptions {
  std::string checkpoint;
  std::string key = "X_scrna";
  bool beside = false;
};

std::vector<data::EmbeddingTarget> targets_of(const EmbedCommand& command) {
  std::vector<data::EmbeddingTarget> targets;
  for (const CopiedFile& file :
       copied_files(command, "embed", "scrna-train embed --checkpoint RUN --out cells.scrna.h5ad cells.h5ad"))
    targets.push_back(
        {.input = file.input, .output = file.output, .key = command.key, .beside = command.beside});
  return targets;
}

// Before the model is read: what would go wrong after hours.
void check_targets(const EmbedCommand& command, const std::vector<data::EmbeddingTarget>& targets) {
  for (const data::EmbeddingTarget& target : targets) {
    data::check_embedding_target(target);
    if (command.force || !fs::exists(target.output)) continue;
    if (!data::read_settings(target.output, target.key)) {
      throw ConfigError("{}: exists already; choose another name, or replace it with --force",
                        target.output.string());
    }
  }
}

// True when the output of exactly this model, input and settings is there.
bool is_done(const EmbedCommand& command, const train::Embedder& embedder,
             const data::EmbeddingTarget& target) {
  if (command.force || !fs::exists(target.output)) return false;
  if (data::read_settings(target.output, target.key) == train::settings_of(embedder, target.input))
    return true;
  throw ConfigError(
      "{}: exists already, with embeddings of another model, file or settings; choose another name, or "
      "replace it with --force",
      target.output.string());
}

train::Embedder prepare(const EmbedCommand& command, const train::EmbedSettings& settings) {
  auto model = std::make_shared<const train::TrainedModel>(train::load_trained_model(command.checkpoint));
  const train::TrainConfig config = train::config_for_use(*model, command.assignments());
  return train::make_embedder(std::move(model), config, settings);
}

std::string summary(const train::Embedder& embedder, const data::EmbeddingTarget& target,
                    const train::EmbedReport& report) {
  const auto computed = static_cast<double>(report.cells - report.resumed_cells);
  std::string text = fmt::format(
      "{}: {} cells x {} in obsm['{}']; {:.1f} s, {:.1f} cells/s{}\n", target.output.string(),
      grouped(report.cells), embedder.config.model.width, target.key, report.seconds,
      computed / std::max(report.seconds, 1e-9),
      report.resumed_cells > 0 ? fmt::format(" ({} were done before)", grouped(report.resumed_cells)) : "");
  if (report.left_out > 0) {
    text += fmt::format(
        "  {} of them express fewer than {} genes of the vocabulary: their rows are NaN (to leave them out: "
        "adata[~numpy.isnan(adata.obsm['{}']).any(axis=1)])\n",
        grouped(report.left_out), embedder.config.data.min_genes, target.key);
  }
  return text;
}

ExitCode embed_one(const EmbedCommand& command, const train::Embedder& embedder,
                   const data::EmbeddingTarget& target) {
  if (is_done(command, embedder, target)) {
    print_finished_before(target.output);
    return ExitCode::kDone;
  }
  train::EmbedReport report;
  const ExitCode code =
      write_copy({target.input, target.output}, "embedding", "embedded",
                 [&](const auto& opening, const auto& keep_going) {
                   report = train::embed_file(embedder, target, program_version(), opening, keep_going);
                   return report.is_finished;
                 });
  if (code == ExitCode::kDone) print(summary(embedder, target, report));
  return code;
}

ExitCode embed(const EmbedCommand& command, const train::EmbedSettings& settings) {
  const std::vector<data::EmbeddingTarget> targets = targets_of(command);
  check_targets(command, targets);
  wait_without_spinning();
  install_stop_signal_handlers();
  const train::Embedder embedder = prepare(command, settings);
  for (const data::EmbeddingTarget& target : targets) {
    const ExitCode code = embed_one(command, embedder, target);
    if (code != ExitCode::kDone) return code;
  }
  return ExitCode::kDone;
}

}  // namespace

void add_embed(Program& program) {
  auto command = std::make_shared<EmbedCommand>();
  auto settings = std::make_shared<train::EmbedSettings>();
  CLI::App& app = add_command(
      program, "embed",
      "writes one vector per cell, as a trained model sees it, into a copy of the cells' file, as "
      "obsm['X_scrna'], with "
      "the record of model and settings in uns['scrna']. All cells, in their order; everything else of the "
      "file stays as "
      "it is. Interrupted, the same command goes on where it was.",
      {{"scrna-train embed --checkpoint runs/first --out cells.scrna.h5ad cells.h5ad",
        "the newest checkpoint of a run; then in Python: scanpy.pp.neighbors(adata, use_rep='X_scrna')"},
       {"scrna-train embed --checkpoint model.safetensors --out-dir embedded 'atlas/*.h5ad'",
        "an exported model, many files"},
       {"scrna-train embed --checkpoint runs/first --beside --out cells.embedding.h5ad cells.h5ad",
        "not a copy, only names of cells and embeddings"},
       {"scrna-train embed --checkpoint runs/first/checkpoints/step-00000500 --layer -2 --pooling max --key "
        "X_max "
        "--out b.h5ad a.h5ad",
        "an earlier checkpoint, another layer, another pooling, another name"}},
      [command, settings] { return embed(*command, *settings); });
  app.add_option(
         "--checkpoint", command->checkpoint,
         "the model: a run directory (its newest checkpoint), a checkpoint folder, or an exported file")
      ->required()
      ->type_name("PATH");
  add_copy_options(app, *command);
  app.add_option("--key", command->key, "name in obsm; the record in uns has it without X_")
      ->default_str("X_scrna")
      ->type_name("NAME");
  app.add_flag("--beside", command->beside,
               "write names of cells and embeddings alone, not a copy of the input");
  add_fields(app, settings);
}

}  // namespace scrna::app
