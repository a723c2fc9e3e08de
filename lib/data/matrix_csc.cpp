// A CSC matrix lies gene by gene, but is wanted cell by cell. It is turned into CSR once, on first use, in a
// temporary file: the entries are dealt out to bands of neighbouring cells, each small enough for memory,
// then each band is sorted by cell. Every read and write is sequential or large, and memory holds one band,
// whatever the size of the matrix. Rejected: a pass over the file for each block of cells, (cells / block)
// passes; and scattering the entries into a mapped file, which touches every page for every few genes, so
// that all of it must stay in memory.
#include <algorithm>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <span>

#include "lib/core/log.h"
#include "lib/data/matrix_layouts.h"
#include "lib/data/scratch_file.h"

namespace scrna::data {
namespace {

constexpr int64_t kEntriesPerRead = 1 << 20;
constexpr int64_t kEntriesPerBand = 4 << 20;   // or one cell, if that has more
constexpr std::size_t kEntriesPending = 8192;  // of a band, before they go to the file

struct Dealt {
  int32_t cell, gene;
  float value;
};
struct Entry {  // as the file holds them in the end, cell after cell
  int32_t gene;
  float value;
};

// Cells [first[b], first[b + 1]) are band b.
std::vector<int64_t> bands_of(const std::vector<int64_t>& cell_begin) {
  std::vector<int64_t> first{0};
  const auto num_cells = std::ssize(cell_begin) - 1;
  for (int64_t cell = 1; cell < num_cells; ++cell) {
    const int64_t begin = cell_begin[static_cast<std::size_t>(first.back())];
    if (cell_begin[static_cast<std::size_t>(cell) + 1] - begin > kEntriesPerBand) first.push_back(cell);
  }
  first.push_back(num_cells);
  return first;
}

class CscMatrix : public MatrixBase {
 public:
  CscMatrix(const h5::Group& group, std::string name, int64_t num_cells, int64_t num_genes)
      : MatrixBase(std::move(name), num_cells, num_genes), parts_(open_sparse(group, num_genes, num_cells)) {
    if (num_cells >= std::numeric_limits<int32_t>::max()) {
      throw DataError("{}: {} cells are more than a CSC matrix may have here; store it as CSR", group.where(),
                      num_cells);
    }
  }
  MatrixLayout layout() const override { return MatrixLayout::kCsc; }
  int64_t stored_values() const override { return parts_.indptr.back(); }
  int64_t stored_entries(int64_t cell) const override {
    std::call_once(transposed_, [&] { transpose(); });
    return begin_of(cell + 1) - begin_of(cell);
  }
  bool has_integer_type() const override { return parts_.data.number_kind() != h5::NumberKind::kFloat; }
  std::string type_name() const override { return parts_.data.type_name(); }

  CellBlock read(int64_t first_cell, int64_t count) const override {
    check_range(first_cell, count);
    std::call_once(transposed_, [&] { transpose(); });
    const int64_t begin = begin_of(first_cell), num_entries = begin_of(first_cell + count) - begin;
    std::vector<Entry> entries(static_cast<std::size_t>(num_entries));
    scratch_->read(static_cast<uint64_t>(begin) * sizeof(Entry), entries.data(),
                   entries.size() * sizeof(Entry));
    CellBlock block{.first_cell = first_cell};
    CellCleaner cleaner;
    std::vector<int32_t> genes;
    std::vector<float> values;
    for (int64_t cell = first_cell; cell < first_cell + count; ++cell) {
      genes.clear();
      values.clear();
      for (int64_t i = begin_of(cell); i < begin_of(cell + 1); ++i) {
        genes.push_back(entries[static_cast<std::size_t>(i - begin)].gene);
        values.push_back(entries[static_cast<std::size_t>(i - begin)].value);
      }
      cleaner.append(block, genes.data(), values.data(), genes.size());
    }
    return block;
  }

 private:
  [[nodiscard]] int64_t begin_of(int64_t cell) const { return cell_begin_[static_cast<std::size_t>(cell)]; }

  // Calls visit(first entry, their cells) with pieces of `indices`, checked.
  template <class Visit>
  void for_pieces(const Visit& visit) const {
    std::vector<int32_t> cells(static_cast<std::size_t>(std::min(kEntriesPerRead, stored_values())));
    for (int64_t first = 0; first < stored_values(); first += kEntriesPerRead) {
      const int64_t count = std::min(kEntriesPerRead, stored_values() - first);
      parts_.indices.read(static_cast<uint64_t>(first), static_cast<uint64_t>(count), cells.data());
      check_indices(cells, count, num_cells_, parts_.indices.where(), "cells");
      visit(first, std::span(cells).first(static_cast<std::size_t>(count)));
    }
  }

  void transpose() const {
    const auto num_entries = static_cast<uint64_t>(stored_values());
    log::info("[data] {}: CSC; making a CSR copy of {} entries ({} MB) in a temporary file",
              parts_.data.where(), num_entries, (num_entries * sizeof(Dealt)) >> 20);
    scratch_ = std::make_unique<ScratchFile>(num_entries * sizeof(Dealt));
    cell_begin_.assign(static_cast<std::size_t>(num_cells_) + 1, 0);
    for_pieces([&](int64_t, std::span<const int32_t> cells) {
      for (const int32_t cell : cells) ++cell_begin_[static_cast<std::size_t>(cell) + 1];
    });
    std::partial_sum(cell_begin_.begin(), cell_begin_.end(), cell_begin_.begin());
    const std::vector<int64_t> bands = bands_of(cell_begin_);
    deal_out(bands);
    // Sorted entries are smaller than dealt ones: band by band they move forward and overtake nothing.
    for (std::size_t band = 0; band + 1 < bands.size(); ++band) sort_band(bands[band], bands[band + 1]);
    scratch_->shrink(num_entries * sizeof(Entry));
  }

  // Writes the entries of each band to its part of the file, in the order of the matrix: genes ascending.
  void deal_out(const std::vector<int64_t>& bands) const {
    struct Band {
      uint64_t offset = 0;
      std::vector<Dealt> pending;
    };
    std::vector<Band> parts(bands.size() - 1);
    std::vector<uint32_t> band_of(static_cast<std::size_t>(num_cells_));
    for (std::size_t band = 0; band < parts.size(); ++band) {
      parts[band].offset = static_cast<uint64_t>(begin_of(bands[band])) * sizeof(Dealt);
      std::fill(band_of.begin() + bands[band], band_of.begin() + bands[band + 1],
                static_cast<uint32_t>(band));
    }
    const auto flush = [&](Band& band) {
      scratch_->write(band.offset, band.pending.data(), band.pending.size() * sizeof(Dealt));
      band.offset += band.pending.size() * sizeof(Dealt);
      band.pending.clear();
    };
    std::vector<float> values(static_cast<std::size_t>(std::min(kEntriesPerRead, stored_values())));
    std::size_t gene = 0;
    for_pieces([&](int64_t first, std::span<const int32_t> cells) {
      parts_.data.read(static_cast<uint64_t>(first), cells.size(), values.data());
      for (std::size_t i = 0; i < cells.size(); ++i) {
        while (parts_.indptr[gene + 1] <= first + static_cast<int64_t>(i)) ++gene;
        Band& band = parts[band_of[static_cast<std::size_t>(cells[i])]];
        band.pending.push_back({cells[i], static_cast<int32_t>(gene), values[i]});
        if (band.pending.size() == kEntriesPending) flush(band);
      }
    });
    for (Band& band : parts) flush(band);
  }

  void sort_band(int64_t first_cell, int64_t end_cell) const {
    const int64_t begin = begin_of(first_cell);
    std::vector<Dealt> dealt(static_cast<std::size_t>(begin_of(end_cell) - begin));
    scratch_->read(static_cast<uint64_t>(begin) * sizeof(Dealt), dealt.data(), dealt.size() * sizeof(Dealt));
    std::vector<int64_t> cursor(cell_begin_.begin() + first_cell, cell_begin_.begin() + end_cell);
    std::vector<Entry> sorted(dealt.size());
    for (const Dealt& entry : dealt) {
      // Somebody may have written to the file since its cells were counted: never go outside the band.
      const bool is_here = entry.cell >= first_cell && entry.cell < end_cell;
      const int64_t target =
          is_here ? cursor[static_cast<std::size_t>(entry.cell - first_cell)]++ - begin : std::ssize(sorted);
      if (target >= std::ssize(sorted))
        throw DataError("{}: changed while it was being read; start again", parts_.indices.where());
      sorted[static_cast<std::size_t>(target)] = {entry.gene, entry.value};
    }
    scratch_->write(static_cast<uint64_t>(begin) * sizeof(Entry), sorted.data(),
                    sorted.size() * sizeof(Entry));
  }

  SparseParts parts_;
  mutable std::once_flag transposed_;
  mutable std::unique_ptr<ScratchFile> scratch_;
  mutable std::vector<int64_t> cell_begin_;  // [num_cells + 1]
};

}  // namespace

std::shared_ptr<const CountMatrix> open_csc(const h5::Group& group, const std::string& name,
                                            int64_t num_cells, int64_t num_genes) {
  return std::make_shared<CscMatrix>(group, name, num_cells, num_genes);
}

}  // namespace scrna::data
