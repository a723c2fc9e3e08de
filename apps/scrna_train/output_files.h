// Which file each input is written to, for commands that write a copy of every .h5ad file they are given (embed,
// annotate): --out FILE for one, --out-dir FOLDER for any number.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lib/core/error.h"

namespace scrna::app {

struct CopiedFile {
  std::filesystem::path input, output;
};

/// inputs: paths and patterns. example: a whole command, for messages; verb: "embed". Makes out_dir where it is
/// missing. Throws ConfigError without inputs, with neither or both of out and out_dir, for several inputs to one output,
/// and for an output that is a folder; DataError as data::resolve_files() and when out_dir cannot be made.
std::vector<CopiedFile> copied_files(const std::vector<std::string>& inputs, const std::string& out,
                                     const std::string& out_dir, const std::string& verb, const std::string& example);

}  // namespace scrna::app
