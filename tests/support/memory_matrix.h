// A CountMatrix made from rows in memory, and sources around it: for tests that need no file.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lib/data/cell_source.h"

namespace scrna::test {

/// One cell: column -> value. Stored in the order of columns, as a CountMatrix promises.
using Row = std::map<int32_t, float>;

class MemoryMatrix : public data::CountMatrix {
 public:
  MemoryMatrix(int64_t num_genes, std::vector<Row> rows) : num_genes_(num_genes), rows_(std::move(rows)) {}
  [[nodiscard]] const std::string& name() const override { return name_; }
  [[nodiscard]] data::MatrixLayout layout() const override {
    return is_dense ? data::MatrixLayout::kDense : data::MatrixLayout::kCsr;
  }
  [[nodiscard]] int64_t num_cells() const override { return std::ssize(rows_); }
  [[nodiscard]] int64_t num_genes() const override { return num_genes_; }
  [[nodiscard]] int64_t stored_values() const override {
    int64_t sum = 0;
    for (const Row& row : rows_) sum += std::ssize(row);
    return sum;
  }
  [[nodiscard]] int64_t stored_entries(int64_t cell) const override {
    return is_dense ? -1 : std::ssize(rows_.at(static_cast<std::size_t>(cell)));
  }
  [[nodiscard]] bool has_integer_type() const override { return false; }
  [[nodiscard]] std::string type_name() const override { return "float32"; }
  [[nodiscard]] data::CellBlock read(int64_t first_cell, int64_t num_cells) const override {
    if (before_read) before_read(first_cell);
    data::CellBlock block{.first_cell = first_cell};
    for (int64_t cell = first_cell; cell < first_cell + num_cells; ++cell) {
      for (const auto& [gene, value] : rows_.at(static_cast<std::size_t>(cell))) {
        block.genes.push_back(gene);
        block.values.push_back(value);
      }
      block.indptr.push_back(std::ssize(block.genes));
    }
    return block;
  }

  std::function<void(int64_t first_cell)> before_read;  // may throw or wait
  bool is_dense = false;                                // does not know the entries of a cell before it is read

 private:
  std::string name_ = "X";
  int64_t num_genes_;
  std::vector<Row> rows_;
};

/// A source with symbols as gene ids.
inline data::CellSource make_source(std::string name, std::vector<std::string> genes, std::vector<Row> rows) {
  data::CellSource source;
  source.name = std::move(name);
  source.matrix = std::make_shared<MemoryMatrix>(std::ssize(genes), std::move(rows));
  source.gene_ids = {.ids = std::move(genes), .type = data::GeneIdType::kSymbol, .source = "var index"};
  return source;
}

}  // namespace scrna::test
