// Embeddings of the cells of an .h5ad file, put where scanpy looks for them: obsm[key], with a record of how
// they were made in uns. Either into a copy of the file, in which every other object keeps its bytes, or
// beside it, as a small AnnData file that has the cells' names and nothing else of it. The output is whole or
// absent. Rejected: writing into the input itself, which a crash would damage.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace scrna::data {

struct EmbeddingTarget {
  std::filesystem::path input;   // the cells' file; not changed
  std::filesystem::path output;  // replaced if it exists
  std::string key = "X_scrna";   // in obsm; the record in uns has the same name without "X_"
  bool beside = false;           // only names of cells, embeddings and record, not a copy
};

using RecordValue = std::variant<std::string, int64_t, double>;
/// uns[record_name(key)]: name and value of each entry; "settings_sha256" is what read_settings() finds.
using EmbeddingRecord = std::vector<std::pair<std::string, RecordValue>>;

/// "X_scrna" -> "scrna".
std::string record_name(const std::string& key);

/// Before hours of work: throws ConfigError for a key that cannot be a name in HDF5, an output that is the
/// input, and an input that has obsm[key] or uns[record_name(key)] already or cannot hold one (10x .h5);
/// DataError when the input cannot be read or the output's folder is missing or not writable.
void check_embedding_target(const EmbeddingTarget& target);

/// Writes num_cells x width fp32 values that `read_rows(first, count, out)` gives in order. Throws DataError
/// (disk full ...), also when the input's number of cells is not num_cells; then nothing is at the output.
void write_embeddings(const EmbeddingTarget& target, int64_t num_cells, int64_t width,
                      const std::function<void(int64_t first, int64_t count, float* out)>& read_rows,
                      const EmbeddingRecord& record);

/// "settings_sha256" of the record in a file written earlier; nullopt when it has none.
std::optional<std::string> read_settings(const std::filesystem::path& file, const std::string& key);

}  // namespace scrna::data
