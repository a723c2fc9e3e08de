// Matrices of obsm, one row for each cell: embeddings that other programs (scanpy's X_pca, scVI, Geneformer ...) or this one
// left in an .h5ad file. Dense numbers only; what else anndata may put there is named and refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace scrna::data {

struct ObsmMatrix {
  int64_t cells = 0;
  int64_t width = 0;
  std::vector<float> values;  // [cells, width]
};

/// Names of the matrices of obsm, sorted; empty without any. Throws DataError for a file that cannot be opened.
std::vector<std::string> obsm_keys(const std::filesystem::path& path);

/// Throws DataError, naming those there are, when there is none of that name.
void require_obsm(const std::filesystem::path& path, const std::string& key);

/// One of them. Throws DataError when there is none of that name (naming those there are), when it is a table or sparse,
/// when it has no column, and when a value is not finite (naming its row). A row of nothing but NaN is kept: that is how
/// `scrna-train embed` and others say that a cell has no embedding.
ObsmMatrix read_obsm(const std::filesystem::path& path, const std::string& key);

}  // namespace scrna::data
