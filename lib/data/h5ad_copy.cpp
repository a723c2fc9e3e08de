#include "lib/data/h5ad_copy.h"

#include <system_error>

#include <unistd.h>

#include "lib/core/error.h"

namespace scrna::data {

namespace fs = std::filesystem;

void check_output_place(const fs::path& input, const fs::path& output) {
  std::error_code problem;
  if (fs::equivalent(input, output, problem)) {
    throw ConfigError("{}: is the input itself; name another output file", output.string());
  }
  const fs::path folder = output.has_parent_path() ? output.parent_path() : fs::path(".");
  if (!fs::is_directory(folder, problem)) {
    throw DataError("{}: there is no folder '{}'; make it with: mkdir -p {}", output.string(), folder.string(),
                    folder.string());
  }
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    throw DataError("{}: the folder '{}' cannot be written", output.string(), folder.string());
  }
}

void copy_contents(const fs::path& from, const fs::path& to, const fs::path& final_name, const std::string& advice) {
  std::error_code problem;
  fs::copy_file(from, to, fs::copy_options::overwrite_existing, problem);
  if (problem) {
    throw DataError("{}: cannot copy {} there: {}; free some space, choose another folder{}", final_name.string(),
                    from.string(), problem.message(), advice);
  }
  // A read-only input must not make a read-only copy.
  fs::permissions(to, fs::perms::owner_read | fs::perms::owner_write, fs::perm_options::add, problem);
}

h5::Handle dict_of(const h5::Handle& root, const std::string& name) {
  if (h5::has_member(root, name)) return h5::open_group(root, name);
  h5::Handle group = h5::create_group(root, name);
  h5::set_encoding(group, "dict", "0.1.0");
  return group;
}

}  // namespace scrna::data
