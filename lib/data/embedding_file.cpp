#include "lib/data/embedding_file.h"

#include <algorithm>
#include <mutex>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/data/anndata.h"
#include "lib/data/h5ad_copy.h"
#include "lib/data/hdf5.h"
#include "lib/data/hdf5_write.h"

namespace scrna::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kRowsPerWrite = 4096;
constexpr int kGzipLevel = 4;  // of the names of cells; floating-point embeddings hardly shrink

void write_record(const h5::Handle& root, const std::string& name, const EmbeddingRecord& record) {
  const h5::Handle uns = dict_of(root, "uns");
  const h5::Handle group = h5::create_group(uns, name);
  h5::set_encoding(group, "dict", "0.1.0");
  for (const auto& [entry, value] : record)
    std::visit([&](const auto& scalar) { h5::write_scalar(group, entry, scalar); }, value);
}

// The AnnData file of cells without genes. Its X of no columns is there because readers of .h5ad files, ours
// among them, expect a matrix.
void write_frame(const h5::Handle& root, const std::vector<std::string>& names) {
  h5::set_encoding(root, "anndata", "0.1.0");
  for (const char* table : {"obs", "var"}) {
    const h5::Handle group = h5::create_group(root, table);
    h5::set_encoding(group, "dataframe", "0.2.0");
    h5::set_attribute(group, "_index", std::string("_index"));
    h5::set_attribute(group, "column-order", std::vector<std::string>());
    h5::Appender index(group, "_index", h5::ElementType::kText, kGzipLevel);
    if (std::string(table) == "obs") index.append(std::span(names));
  }
  const h5::Handle matrix = h5::create_group(root, "X");
  h5::set_encoding(matrix, "csr_matrix", "0.1.0");
  h5::set_attribute(matrix, "shape", std::vector<int64_t>{std::ssize(names), 0});
  h5::Appender(matrix, "data", h5::ElementType::kFloat32, kGzipLevel);
  h5::Appender(matrix, "indices", h5::ElementType::kInt32, kGzipLevel);
  const std::vector<int64_t> no_entries(names.size() + 1);
  h5::Appender(matrix, "indptr", h5::ElementType::kInt64, kGzipLevel).append(std::span(no_entries));
  for (const char* name : {"layers", "obsm", "obsp", "uns", "varm", "varp"}) dict_of(root, name);
}

}  // namespace

std::string record_name(const std::string& key) { return key.starts_with("X_") ? key.substr(2) : key; }

void check_embedding_target(const EmbeddingTarget& target) {
  const bool is_name = !target.key.empty() && record_name(target.key) != "" && target.key != "." &&
                       target.key.find('/') == std::string::npos;
  if (!is_name) {
    throw ConfigError("--key: '{}' cannot name an entry of obsm; expected a name such as X_scrna",
                      target.key);
  }
  check_output_place(target.input, target.output);
  if (target.beside) return;
  const std::scoped_lock lock(h5::hdf5_mutex());
  const h5::Group root = h5::open_file(target.input);
  if (!root.has("obs") || !root.has("var")) {
    throw ConfigError(
        "{}: is not an .h5ad file, so a copy of it cannot hold embeddings; write them beside it "
        "(--beside)",
        target.input.string());
  }
  for (const char* group : {"obsm", "uns"}) {
    if (root.has(group) && root.kind_of(group) != h5::ObjectKind::kGroup) {
      throw ConfigError(
          "{}: its {} has the form of AnnData before 0.7, to which nothing can be added; write the "
          "embeddings beside it (--beside), or rewrite the file with a newer anndata",
          target.input.string(), group);
    }
  }
  for (const std::string& path : {"obsm/" + target.key, "uns/" + record_name(target.key)}) {
    if (root.has(path.substr(0, path.find('/'))) && root.has(path)) {
      throw ConfigError(
          "{}: has {} already; choose another name (--key X_other), or write beside it (--beside)",
          target.input.string(), path);
    }
  }
}

void write_embeddings(const EmbeddingTarget& target, int64_t num_cells, int64_t width,
                      const std::function<void(int64_t first, int64_t count, float* out)>& read_rows,
                      const EmbeddingRecord& record) {
  std::vector<std::string> names;
  if (target.beside) {
    names = AnnDataFile(target.input).obs_index();
    if (std::ssize(names) != num_cells) {
      throw DataError("{}: has {} cells now, {} were embedded; do not write to files that are in use",
                      target.input.string(), names.size(), num_cells);
    }
  }
  AtomicFile file(target.output);
  if (!target.beside)
    copy_contents(target.input, file.temporary_path(), target.output, ", or write only the embeddings (--beside)");
  const std::scoped_lock lock(h5::hdf5_mutex());
  h5::Handle root = target.beside ? h5::create_file(file.temporary_path())
                                  : h5::open_file_for_writing(file.temporary_path());
  if (target.beside) write_frame(root, names);
  {
    const h5::Handle obsm = dict_of(root, "obsm");
    h5::MatrixWriter matrix(obsm, target.key, num_cells, width);
    std::vector<float> values;
    for (int64_t first = 0; first < num_cells; first += kRowsPerWrite) {
      const int64_t count = std::min(kRowsPerWrite, num_cells - first);
      values.resize(static_cast<std::size_t>(count * width));
      read_rows(first, count, values.data());
      matrix.write(first, count, values.data());
    }
    write_record(root, record_name(target.key), record);
  }
  h5::close_file(std::exchange(root, {}), file.temporary_path());
  file.commit();
}

std::optional<std::string> read_settings(const fs::path& file, const std::string& key) {
  const std::scoped_lock lock(h5::hdf5_mutex());
  try {
    const h5::Group root = h5::open_file(file);
    const std::string path = "uns/" + record_name(key) + "/settings_sha256";
    if (!root.has("obsm") || !root.has("obsm/" + key) || !root.has("uns") ||
        !root.has("uns/" + record_name(key)) || !root.has(path)) {
      return std::nullopt;
    }
    const std::vector<std::string> texts = root.dataset(path).read_text();
    return texts.empty() ? std::nullopt : std::optional(texts.front());
  } catch (const DataError&) {
    return std::nullopt;  // whatever it is, it is none of ours
  }
}

}  // namespace scrna::data
