// Predicted classes of the cells of an .h5ad file, put where scanpy looks for labels: in a copy of the file,
//
//   obs[KEY]                    the most probable class, categorical; missing for a cell without a prediction
//   obs[KEY_probability]        its probability
//   obsm[KEY_probabilities]     the probabilities of all classes, float32
//   uns[KEY]                    "classes", the names of those columns, and how the predictions were made
//
// Every other object of the file keeps its bytes, but for obs' list of its columns. The output is whole or absent.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/data/embedding_file.h"

namespace scrna::data {

struct AnnotationTarget {
  std::filesystem::path input;   // the cells' file; not changed
  std::filesystem::path output;  // replaced if it exists
  std::string key;               // "scrna_cell_type"
};

/// Before hours of work: throws ConfigError for a key that cannot be a name, an output that is the input, an input that has
/// one of the four entries already or cannot hold them (10x .h5, AnnData before 0.7); DataError when the input cannot be
/// read or the output's folder is missing or not writable.
void check_annotation_target(const AnnotationTarget& target);

/// What became of the cells.
struct AnnotationCounts {
  std::vector<int64_t> cells_of_class;  // [classes]
  int64_t missing = 0;
  double mean_probability = 0;  // of the predicted class, over cells that have one
};

/// Writes the predictions whose probabilities `read_rows(first, count, out)` gives, count x classes, in order; a row that
/// begins with NaN has none. record: as write_embeddings(). Throws DataError (disk full ...); then nothing is at the
/// output. Throws DataError when the input's number of cells is not num_cells.
AnnotationCounts write_annotations(const AnnotationTarget& target, int64_t num_cells,
                                   const std::vector<std::string>& classes,
                                   const std::function<void(int64_t first, int64_t count, float* out)>& read_rows,
                                   const EmbeddingRecord& record);

/// "settings_sha256" of the record in a file written earlier; nullopt when it has none.
std::optional<std::string> read_annotation_settings(const std::filesystem::path& file, const std::string& key);

}  // namespace scrna::data
