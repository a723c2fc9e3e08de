// scrna-train export: a trained model as one file (lib/train/trained_model.h).
#include <filesystem>
#include <memory>
#include <string>

#include "apps/scrna_train/command_line.h"
#include "lib/core/progress.h"
#include "lib/train/trained_model.h"

namespace scrna::app {
namespace {

struct ExportCommand {
  std::string checkpoint, out;
  bool force = false;
};

ExitCode export_file(const ExportCommand& command) {
  const std::filesystem::path out = command.out;
  if (std::filesystem::is_directory(out)) {
    throw ConfigError("--out {}: is a folder; name a file, for example {}", out.string(),
                      (out / "model.safetensors").string());
  }
  if (std::filesystem::exists(out) && !command.force) {
    throw ConfigError("--out {}: exists already; choose another name, or replace it with --force",
                      out.string());
  }
  const train::TrainedModel model = train::load_trained_model(command.checkpoint);
  // Made once, so that a file that no encoder can be made of is never written.
  const auto encoder = train::make_encoder(model, model.config, at::kCPU, at::kFloat);
  train::export_model(model, out, program_version());
  print(
      fmt::format("{}: {} parameters after {} steps, {} genes, {:.1f} MB\n"
                  "  weights SHA-256 {}\n"
                  "  next: scrna-train embed --checkpoint {} --out cells.scrna.h5ad cells.h5ad\n"
                  "        python: scrna_torch.load('{}') (scripts/scrna_torch.py)\n",
                  out.string(), grouped(encoder->parameters().num_elements()), grouped(model.step),
                  grouped(std::ssize(model.vocabulary.genes())),
                  static_cast<double>(std::filesystem::file_size(out)) / 1e6, model.weights_sha256,
                  out.string(), out.string()));
  return ExitCode::kDone;
}

}  // namespace

void add_export(Program& program) {
  auto command = std::make_shared<ExportCommand>();
  CLI::App& app = add_command(
      program, "export",
      "writes a trained model as one safetensors file: weights, vocabulary with the tokenizer's medians, and "
      "configuration. embed and train (train.initial_weights) read it, and scripts/scrna_torch.py loads it "
      "into plain "
      "PyTorch.",
      {{"scrna-train export --checkpoint runs/first --out model.safetensors",
        "the newest checkpoint of a run"},
       {"scrna-train export --checkpoint runs/first/checkpoints/step-00000500 --out early.safetensors",
        "an earlier one"}},
      [command] { return export_file(*command); });
  app.add_option(
         "--checkpoint", command->checkpoint,
         "the model: a run directory (its newest checkpoint), a checkpoint folder, or an exported file")
      ->required()
      ->type_name("PATH");
  app.add_option("--out", command->out, "file to write")->required()->type_name("FILE.safetensors");
  app.add_flag("--force", command->force, "replace a file that exists");
}

}  // namespace scrna::app
