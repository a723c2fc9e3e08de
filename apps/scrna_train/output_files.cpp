#include "apps/scrna_train/output_files.h"

#include <optional>
#include <set>
#include <system_error>

#include "apps/scrna_train/command_line.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"

namespace scrna::app {

namespace fs = std::filesystem;

std::vector<CopiedFile> copied_files(const std::vector<std::string>& inputs, const std::string& out,
                                     const std::string& out_dir, const std::string& verb,
                                     const std::string& example) {
  if (inputs.empty()) throw ConfigError("no input; name one or more .h5ad files, for example: {}", example);
  const std::vector<fs::path> paths = data::resolve_files(inputs);
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
