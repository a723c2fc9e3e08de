// Writes everything lib/data reads from one .h5ad file in a form that Python can compare with the anndata
// package: dump.json and, for each matrix, its CSR arrays as raw little-endian files. Matrices are read in
// blocks of a size that divides nothing.
//   data_dump FILE.h5ad OUTPUT_FOLDER [GENOME]      exit code 0, or 3 with {"error": ...} in dump.json
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/data/anndata.h"

namespace {

using nlohmann::json;
using scrna::data::AnnDataFile;
using scrna::data::CellBlock;
using scrna::data::ColumnKind;

constexpr int64_t kCellsPerRead = 97;

template <class T>
void append(std::ofstream& file, const std::vector<T>& values) {
  file.write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(T)));
}

json dump_matrix(const AnnDataFile& file, const std::string& name, const std::filesystem::path& stem) {
  const auto matrix = file.open_matrix(name);
  std::ofstream counts(stem.string() + ".row_sizes.i64"), genes(stem.string() + ".genes.i32"),
      values(stem.string() + ".values.f32");
  for (int64_t first = 0; first < matrix->num_cells(); first += kCellsPerRead) {
    const CellBlock block = matrix->read(first, std::min(kCellsPerRead, matrix->num_cells() - first));
    std::vector<int64_t> sizes;
    for (std::size_t i = 1; i < block.indptr.size(); ++i)
      sizes.push_back(block.indptr[i] - block.indptr[i - 1]);
    append(counts, sizes);
    append(genes, block.genes);
    append(values, block.values);
  }
  return {{"layout", scrna::data::name_of(matrix->layout())},
          {"type", matrix->type_name()},
          {"cells", matrix->num_cells()},
          {"genes", matrix->num_genes()},
          {"stored_values", matrix->stored_values()},
          {"stem", stem.filename().string()},
          {"var_index", file.var_index(name)}};
}

json dump_obs_column(const AnnDataFile& file, const std::string& name) {
  const ColumnKind kind = file.obs_kind(name);
  json column{{"kind", scrna::data::name_of(kind)}};
  try {
    if (kind == ColumnKind::kFloat || kind == ColumnKind::kInteger || kind == ColumnKind::kBoolean) {
      json numbers = json::array();
      for (const double value : file.obs_numbers(name)) {
        if (value == value)
          numbers.push_back(value);
        else
          numbers.push_back(nullptr);
      }
      column["numbers"] = numbers;
    }
    if (kind != ColumnKind::kFloat) {
      const auto categories = file.obs_categories(name);
      column["codes"] = categories.codes;
      column["categories"] = categories.categories;
    }
  } catch (const scrna::DataError& error) {
    column["error"] = error.what();
  }
  return column;
}

json dump(const std::filesystem::path& path, const std::filesystem::path& folder, const std::string& genome) {
  const AnnDataFile file(path, genome);
  json result{{"cells", file.num_cells()}, {"obs_index", file.obs_index()}};
  for (const std::string& name : file.matrix_names()) {
    const auto stem = folder / ("matrix" + std::to_string(result["matrices"].size()));
    try {
      result["matrices"][name] = dump_matrix(file, name, stem);
    } catch (const scrna::DataError& error) {
      result["matrices"][name] = {{"error", error.what()}};
    }
    for (const std::string& column : file.var_columns(name)) {
      try {
        result["var"][name][column] = file.var_column(name, column);
      } catch (const scrna::DataError& error) {
        result["var"][name][column] = {{"error", error.what()}};
      }
    }
  }
  for (const std::string& name : file.obs_columns()) result["obs"][name] = dump_obs_column(file, name);
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) return 2;
  scrna::log::set_console_level(scrna::log::Level::kError);
  json result;
  int code = 0;
  try {
    result = dump(argv[1], argv[2], argc == 4 ? argv[3] : "");
  } catch (const scrna::DataError& error) {
    result = {{"error", error.what()}};
    code = 3;
  }
  std::ofstream(std::filesystem::path(argv[2]) / "dump.json")
      << result.dump(-1, ' ', false, json::error_handler_t::replace);
  return code;
}
