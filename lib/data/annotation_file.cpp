#include "lib/data/annotation_file.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <span>
#include <utility>
#include <variant>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/data/anndata.h"
#include "lib/data/h5ad_copy.h"
#include "lib/data/hdf5.h"
#include "lib/data/hdf5_write.h"

namespace scrna::data {
namespace {

constexpr int64_t kRowsPerWrite = 4096;
constexpr int kGzipLevel = 4;

std::string probability_of(const std::string& key) { return key + "_probability"; }
std::string probabilities_of(const std::string& key) { return key + "_probabilities"; }

/// Codes and probabilities of the most probable classes, the first of equally probable ones.
struct Predictions {
  std::vector<int32_t> codes;
  std::vector<float> probabilities;
  AnnotationCounts counts;

  void add(const float* row, int64_t num_classes) {
    if (std::isnan(row[0])) {
      codes.push_back(-1);
      probabilities.push_back(std::numeric_limits<float>::quiet_NaN());
      ++counts.missing;
      return;
    }
    const float* best = std::max_element(row, row + num_classes);
    codes.push_back(static_cast<int32_t>(best - row));
    probabilities.push_back(*best);
    ++counts.cells_of_class[static_cast<std::size_t>(best - row)];
    counts.mean_probability += *best;
  }
};

void write_obs(const h5::Handle& root, const std::string& key, const std::vector<std::string>& columns,
               const std::vector<std::string>& classes, const Predictions& predictions) {
  const h5::Handle obs = h5::open_group(root, "obs");
  const h5::Handle group = h5::create_group(obs, key);
  h5::set_encoding(group, "categorical", "0.2.0");
  h5::set_bool_attribute(group, "ordered", false);
  h5::Appender(group, "categories", h5::ElementType::kText, kGzipLevel).append(std::span(classes));
  const bool is_small = classes.size() <= std::numeric_limits<int8_t>::max();
  h5::Appender(group, "codes", is_small ? h5::ElementType::kInt8 : h5::ElementType::kInt32, kGzipLevel)
      .append(std::span(predictions.codes));
  h5::Appender(obs, probability_of(key), h5::ElementType::kFloat32, kGzipLevel)
      .append(std::span(predictions.probabilities));
  std::vector<std::string> order = columns;
  order.insert(order.end(), {key, probability_of(key)});
  h5::remove_attribute(obs, "column-order");
  h5::set_attribute(obs, "column-order", order);
}

void write_record(const h5::Handle& root, const std::string& key, const std::vector<std::string>& classes,
                  const EmbeddingRecord& record) {
  const h5::Handle uns = dict_of(root, "uns");
  const h5::Handle group = h5::create_group(uns, key);
  h5::set_encoding(group, "dict", "0.1.0");
  h5::Appender(group, "classes", h5::ElementType::kText, kGzipLevel).append(std::span(classes));
  for (const auto& [entry, value] : record)
    std::visit([&](const auto& scalar) { h5::write_scalar(group, entry, scalar); }, value);
}

}  // namespace

void check_annotation_target(const AnnotationTarget& target) {
  const std::string& key = target.key;
  if (key.empty() || key == "." || key == "_index" || key == "__categories" || key.find('/') != std::string::npos)
    throw ConfigError("--key: '{}' cannot name a column of obs; expected a name such as scrna_cell_type", key);
  check_output_place(target.input, target.output);
  const std::scoped_lock lock(h5::hdf5_mutex());
  const h5::Group root = h5::open_file(target.input);
  if (!root.has("obs") || !root.has("var"))
    throw ConfigError("{}: is not an .h5ad file, so a copy of it cannot hold labels; write it with anndata first",
                      target.input.string());
  for (const char* group : {"obs", "obsm", "uns"}) {
    if (root.has(group) && root.kind_of(group) != h5::ObjectKind::kGroup)
      throw ConfigError(
          "{}: its {} has the form of AnnData before 0.7, to which nothing can be added; rewrite the file with a newer "
          "anndata (anndata.read_h5ad, then write_h5ad)",
          target.input.string(), group);
  }
  for (const auto& [group, name] : {std::pair{"obs", key}, std::pair{"obs", probability_of(key)},
                                    std::pair{"obsm", probabilities_of(key)}, std::pair{"uns", key}}) {
    if (root.has(group) && root.has(std::string(group) + "/" + name))
      throw ConfigError("{}: has {}/{} already; choose another name (--key scrna_other)", target.input.string(), group,
                        name);
  }
}

AnnotationCounts write_annotations(const AnnotationTarget& target, int64_t num_cells,
                                   const std::vector<std::string>& classes,
                                   const std::function<void(int64_t first, int64_t count, float* out)>& read_rows,
                                   const EmbeddingRecord& record) {
  const auto num_classes = std::ssize(classes);
  std::vector<std::string> columns;
  {
    const AnnDataFile input(target.input);
    columns = input.obs_columns();
    if (input.num_cells() != num_cells)
      throw DataError("{}: has {} cells now, {} were annotated; do not write to files that are in use",
                      target.input.string(), input.num_cells(), num_cells);
  }
  AtomicFile file(target.output);
  copy_contents(target.input, file.temporary_path(), target.output, "");
  const std::scoped_lock lock(h5::hdf5_mutex());
  h5::Handle root = h5::open_file_for_writing(file.temporary_path());
  Predictions predictions;
  predictions.counts.cells_of_class.resize(classes.size());
  {
    const h5::Handle obsm = dict_of(root, "obsm");
    h5::MatrixWriter matrix(obsm, probabilities_of(target.key), num_cells, num_classes);
    std::vector<float> values;
    for (int64_t first = 0; first < num_cells; first += kRowsPerWrite) {
      const int64_t count = std::min(kRowsPerWrite, num_cells - first);
      values.resize(static_cast<std::size_t>(count * num_classes));
      read_rows(first, count, values.data());
      matrix.write(first, count, values.data());
      for (int64_t row = 0; row < count; ++row) predictions.add(values.data() + row * num_classes, num_classes);
    }
    write_obs(root, target.key, columns, classes, predictions);
    write_record(root, target.key, classes, record);
  }
  h5::close_file(std::exchange(root, {}), file.temporary_path());
  file.commit();
  const int64_t predicted = num_cells - predictions.counts.missing;
  predictions.counts.mean_probability =
      predicted > 0 ? predictions.counts.mean_probability / static_cast<double>(predicted)
                    : std::numeric_limits<double>::quiet_NaN();
  return predictions.counts;
}

std::optional<std::string> read_annotation_settings(const std::filesystem::path& file, const std::string& key) {
  const std::scoped_lock lock(h5::hdf5_mutex());
  try {
    const h5::Group root = h5::open_file(file);
    const std::string path = "uns/" + key + "/settings_sha256";
    for (const std::string& part : {std::string("obs"), "obs/" + key, std::string("uns"), "uns/" + key, path})
      if (!root.has(part)) return std::nullopt;
    const std::vector<std::string> texts = root.dataset(path).read_text();
    return texts.empty() ? std::nullopt : std::optional(texts.front());
  } catch (const DataError&) {
    return std::nullopt;  // whatever it is, it is none of ours
  }
}

}  // namespace scrna::data
