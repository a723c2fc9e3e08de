#include "lib/data/data_config.h"

#include "lib/core/error.h"
#include "lib/data/obs_filter.h"

namespace scrna::data {

void DataConfig::validate(const std::string& path) const {
  if (!filter.empty()) ObsFilter::parse(filter, path + ".filter");
  if (!cache.empty() && vocabulary.empty()) {
    throw ConfigError("{}.cache: needs {}.vocabulary, the vocabulary it was made with: {}/vocabulary.tsv",
                      path, path, cache);
  }
  if (heldout_whole_files && !heldout_column.empty()) {
    throw ConfigError(
        "{}.heldout_whole_files: true, but {}.heldout_column is '{}'; hold out either whole files or groups",
        path, path, heldout_column);
  }
}

}  // namespace scrna::data
