#include "lib/data/data_config.h"

#include "lib/core/error.h"
#include "lib/data/obs_filter.h"
#include "lib/data/sampling.h"

namespace scrna::data {

void DataConfig::validate(const std::string& path) const {
  if (!filter.empty()) ObsFilter::parse(filter, path + ".filter");
  if (!cache.empty() && vocabulary.empty()) {
    throw ConfigError("{}.cache: needs {}.vocabulary, the vocabulary it was made with: {}/vocabulary.tsv",
                      path, path, cache);
  }
  parse_sampling_weights(sampling_weights, path + ".sampling_weights");
  if (sampling_files && !sampling_column.empty()) {
    throw ConfigError(
        "{}.sampling_files: true, but {}.sampling_column is '{}'; groups are either files or of a column",
        path, path, sampling_column);
  }
  if (!is_sampled() && (sampling_temperature != 1 || !sampling_weights.empty())) {
    throw ConfigError(
        "{}.sampling_temperature and {}.sampling_weights: of which groups? Name an obs column in "
        "{}.sampling_column, "
        "or set {}.sampling_files",
        path, path, path, path);
  }
  if (heldout_whole_files && !heldout_column.empty()) {
    throw ConfigError(
        "{}.heldout_whole_files: true, but {}.heldout_column is '{}'; hold out either whole files or groups",
        path, path, heldout_column);
  }
}

}  // namespace scrna::data
