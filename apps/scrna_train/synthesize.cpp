// scrna-train synthesize: a file of synthetic cells. The flags are the fields of data::SynthesizeOptions.
#include "lib/data/synthesize.h"

#include <csignal>
#include <filesystem>
#include <memory>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/fields.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"

namespace scrna::app {
namespace {

struct SynthesizeCommand {
  std::string out;
  bool force = false;
};

// Before minutes of work: what would go wrong at their end.
void check_target(const std::filesystem::path& target, bool force) {
  const std::filesystem::path folder = target.has_parent_path() ? target.parent_path() : ".";
  if (!std::filesystem::exists(folder)) {
    throw DataError("{}: there is no folder '{}'; make it with: mkdir -p {}", target.string(),
                    folder.string(), folder.string());
  }
  if (!std::filesystem::is_directory(folder)) {
    throw DataError("{}: '{}' is not a folder", target.string(), folder.string());
  }
  if (std::filesystem::is_directory(target)) {
    throw ConfigError("--out {}: is a folder; name a file, for example {}", target.string(),
                      (target / "cells.h5ad").string());
  }
  if (std::filesystem::exists(target) && !force) {
    throw ConfigError("--out {}: the file exists; choose another name, or replace it with --force",
                      target.string());
  }
}

struct Stopped {};

// Ctrl-C and SIGTERM between blocks of cells, so that the temporary file is removed; then the signal ends the
// program as it would have.
data::SynthesizeReport write_cells(const data::SynthesizeOptions& options,
                                   const std::filesystem::path& target) {
  PhaseProgress progress("cells");
  install_stop_signal_handlers();
  try {
    return data::synthesize(options, target, [&](std::string_view phase, int64_t done, int64_t total) {
      if (stop_signal() != 0) throw Stopped{};
      progress(phase, done, total);
    });
  } catch (const Stopped&) {
    progress.finish();
    std::signal(stop_signal(), SIG_DFL);
    std::raise(stop_signal());
    throw;  // not reached
  }
}

ExitCode synthesize(const SynthesizeCommand& command, const data::SynthesizeOptions& options) {
  options.validate("");
  const std::filesystem::path target = command.out;
  check_target(target, command.force);
  const data::SynthesizeReport report = write_cells(options, target);
  print(
      fmt::format("{}: {} cells x {} genes, {:.1f} MB, written in {:.1f} s\n"
                  "  expressed genes per cell: median {:.0f}; non-zero counts: {}\n"
                  "  next: scrna-train inspect {}\n",
                  target.string(), grouped(report.cells), grouped(options.genes),
                  static_cast<double>(report.file_bytes) / 1e6, report.seconds, report.median_genes,
                  grouped(report.stored_values), target.string()));
  return ExitCode::kDone;
}

}  // namespace

void add_synthesize(Program& program) {
  auto command = std::make_shared<SynthesizeCommand>();
  auto options = std::make_shared<data::SynthesizeOptions>();
  CLI::App& app = add_command(
      program, "synthesize",
      "writes an .h5ad file of synthetic cells: cell types with gene programs, donors with batch effects, "
      "negative-binomial counts. The same flags and seed give the same file.",
      {{"scrna-train synthesize --out cells.h5ad",
        "5,000 cells x 4,000 genes, about 6 MB: enough to try everything"},
       {"scrna-train synthesize --out long.h5ad --cells 2000 --genes 30000 --lengths cellxgene",
        "cells as long as those of the CELLxGENE corpus, up to 16,000 expressed genes: for contexts of "
        "8,192"},
       {"scrna-train synthesize --out big.h5ad --cells 1000000 --num-workers 8",
        "a million cells; memory does not grow with their number"}},
      [command, options] { return synthesize(*command, *options); });
  app.add_option("--out", command->out, "file to write; appears when it is complete")
      ->required()
      ->type_name("FILE.h5ad");
  app.add_flag("--force", command->force, "replace the file if it exists");
  add_fields(app, options);
}

}  // namespace scrna::app
