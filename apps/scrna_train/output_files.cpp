#include "apps/scrna_train/output_files.h"

#include <optional>
#include <set>
#include <system_error>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/fast_settings.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"

namespace scrna::app {

namespace fs = std::filesystem;

std::vector<std::string> CopyOptions::assignments() const {
  std::vector<std::string> words = fast ? fast_assignments() : std::vector<std::string>();
  words.insert(words.end(), overrides.begin(), overrides.end());
  if (!device.empty()) words.push_back("train.device=" + device);
  if (!precision.empty()) words.push_back("train.precision=" + precision);
  return words;
}

void add_copy_options(CLI::App& app, CopyOptions& options) {
  app.add_option("FILE.h5ad", options.files, ".h5ad files or patterns, with raw counts")
      ->type_name("FILE.h5ad ...");
  app.add_option("--out", options.out, "file to write, for one input")->type_name("FILE.h5ad");
  app.add_option("--out-dir", options.out_dir,
                 "folder to write into, under the inputs' names; made if it does not exist")
      ->type_name("FOLDER");
  app.add_flag("--force", options.force, "replace an output that exists");
  app.add_option("--device", options.device, "auto (a GPU if there is one), cpu or cuda")->type_name("NAME");
  app.add_option("--precision", options.precision,
                 "of products: auto (bf16 on a GPU, fp32 on the CPU), fp32 or bf16")
      ->type_name("NAME");
  app.add_flag("--fast", options.fast,
               "with bf16 products on a GPU a tenth faster and a little less exact: model.attention_precision=fast, "
               "model.gelu_precision=fast, model.residual_precision=bf16");
  app.add_option("--set", options.overrides,
                 "how files are read or products computed, over the model's own settings, for example "
                 "data.matrix=layers/counts, data.min_genes=1; repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

std::vector<CopiedFile> copied_files(const CopyOptions& options, const std::string& verb,
                                     const std::string& example) {
  const std::string &out = options.out, &out_dir = options.out_dir;
  if (options.files.empty())
    throw ConfigError("no input; name one or more .h5ad files, for example: {}", example);
  const std::vector<fs::path> paths = data::resolve_files(options.files);
  if (out.empty() == out_dir.empty()) {
    throw ConfigError(
        "expected one of --out FILE.h5ad (for one input) and --out-dir FOLDER (for any number), got {}",
        out.empty() ? "neither" : "both");
  }
  if (!out.empty() && paths.size() != 1) {
    throw ConfigError("--out {}: one output for {} inputs; use --out-dir FOLDER", out, paths.size());
  }
  std::vector<CopiedFile> files;
  std::set<fs::path> outputs;
  for (const fs::path& input : paths) {
    fs::path output = out;
    if (out.empty()) output = fs::path(out_dir) / (input.stem().string() + ".h5ad");
    if (!outputs.insert(output).second) {
      throw ConfigError("--out-dir {}: two inputs would be written to {}; {} them into different folders",
                        out_dir, output.string(), verb);
    }
    files.push_back({input, output});
  }
  if (!out_dir.empty()) {
    std::error_code problem;
    fs::create_directories(out_dir, problem);
    if (problem) throw DataError("--out-dir {}: cannot create it: {}", out_dir, problem.message());
  }
  for (const CopiedFile& file : files) {
    if (fs::is_directory(file.output))
      throw ConfigError("--out {}: is a folder; name a file, or use --out-dir", file.output.string());
  }
  return files;
}

ExitCode write_copy(const CopiedFile& file, const std::string& doing, const std::string& done,
                    const WriteCopy& write) {
  PhaseProgress opening("cells");
  std::optional<ProgressBar> bar;
  const bool is_finished = write(
      [&](std::string_view phase, int64_t cells, int64_t total) {
        if (stop_signal() != 0)
          throw Interrupted("stopped by signal {} before the first cell was {}", stop_signal(), done);
        opening(phase, cells, total);
      },
      [&](int64_t cells, int64_t total) {
        opening.finish();
        if (!bar) bar.emplace(doing, total, "cells", cells);
        bar->update(cells);
        return stop_signal() == 0;
      });
  if (bar) bar->finish();
  if (is_finished) return ExitCode::kDone;
  print(fmt::format(
      "{}: stopped by signal {}; the finished rows are in {}.partial. The same command goes on there\n",
      file.input.string(), stop_signal(), file.output.string()));
  return ExitCode::kSavedAfterSignal;
}

void print_finished_before(const fs::path& output) {
  print(fmt::format("{}: was finished before, by the same model and settings\n", output.string()));
}

}  // namespace scrna::app
