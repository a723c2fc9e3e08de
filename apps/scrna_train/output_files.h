// Which file each input is written to, for commands that write a copy of every .h5ad file they are given
// (embed, annotate): --out FILE for one, --out-dir FOLDER for any number.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "lib/core/error.h"
#include "lib/data/cell_source.h"

namespace scrna::app {

/// What such a command takes besides the model.
struct CopyOptions {
  std::vector<std::string> files;
  std::string out, out_dir;
  std::string device, precision;  // empty: auto
  std::vector<std::string> overrides;
  bool force = false;
  bool fast = false;

  /// For train::config_for_use().
  [[nodiscard]] std::vector<std::string> assignments() const;
};

/// FILE.h5ad, --out, --out-dir, --force, --device, --precision, --fast, --set.
void add_copy_options(CLI::App& app, CopyOptions& options);

struct CopiedFile {
  std::filesystem::path input, output;
};

/// example: a whole command, for messages; verb: "embed". Makes out_dir where it
/// is missing. Throws ConfigError without inputs, with neither or both of out and out_dir, for several inputs
/// to one output, and for an output that is a folder; DataError as data::resolve_files() and when out_dir
/// cannot be made.
std::vector<CopiedFile> copied_files(const CopyOptions& options, const std::string& verb,
                                     const std::string& example);

/// What the writers of lib/ call: while they open a file, and with the cells that are done; false: stop.
using WriteCopy = std::function<bool(const data::Progress& opening,
                                     const std::function<bool(int64_t, int64_t)>& keep_going)>;

/// Runs write, which returns whether all of the file was written, under a progress bar ("embedding") and the
/// signals that stop it. kSavedAfterSignal, and what to do printed, when it was not. Throws Interrupted when
/// a signal comes before the first cell was "embedded", and what write throws.
ExitCode write_copy(const CopiedFile& file, const std::string& doing, const std::string& done,
                    const WriteCopy& write);

/// The line for an output that is there already.
void print_finished_before(const std::filesystem::path& output);

}  // namespace scrna::app
