// A copy of an .h5ad file that something is added to (embeddings, annotations), every other object keeping its bytes. What
// is wrong with input or output is found before hours of work; the copy is made under a temporary name. Internal to
// lib/data but for the errors.
#pragma once

#include <filesystem>
#include <string>

#include "lib/data/hdf5_write.h"

namespace scrna::data {

/// Throws ConfigError for an output that is the input; DataError when its folder is missing or cannot be written.
void check_output_place(const std::filesystem::path& input, const std::filesystem::path& output);

/// Copies the bytes, to a file that can be written. Throws DataError naming `final_name` and `advice` ("or write ...").
void copy_contents(const std::filesystem::path& from, const std::filesystem::path& to,
                   const std::filesystem::path& final_name, const std::string& advice);

/// The group of that name, made as an AnnData dict when it is missing. Callers hold hdf5_mutex().
h5::Handle dict_of(const h5::Handle& root, const std::string& name);

}  // namespace scrna::data
