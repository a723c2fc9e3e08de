#include "lib/data/synthesize.h"

#include <algorithm>
#include <future>
#include <thread>
#include <vector>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/data/h5ad_writer.h"
#include "lib/data/synthesize_model.h"

namespace scrna::data {
namespace {

constexpr int64_t kCellsPerBlock = 256;
constexpr std::size_t kLengthsKept = 100000;

std::string ensembl_id(int64_t gene) {
  return fmt::format("ENSG{:011}", 90000000000 + gene);
}  // beyond the real ones
std::string symbol(int64_t gene) { return fmt::format("SYN{:05}", gene); }

struct Block {
  CellBlock cells;
  TableRows obs;
  std::vector<int64_t> lengths;
};

Block make_block(const CellModel& model, int64_t first, int64_t count) {
  Block block;
  CellModel::Scratch scratch;
  std::vector<int32_t> types, donors;
  std::vector<int64_t> totals;
  for (int64_t cell = first; cell < first + count; ++cell) {
    const CellModel::CellInfo info = model.append(cell, scratch, block.cells);
    block.obs.index.push_back(fmt::format("cell-{:08}", cell));
    types.push_back(info.cell_type);
    donors.push_back(info.donor);
    totals.push_back(info.total_counts);
    block.lengths.push_back(info.expressed_genes);
  }
  block.obs.columns = {std::move(types), std::move(donors), std::move(totals), block.lengths};
  return block;
}

// One block per thread, in order.
std::vector<Block> make_blocks(const CellModel& model, const SynthesizeOptions& options, int64_t first) {
  std::vector<std::future<Block>> futures;
  for (int64_t i = 0; i < options.num_workers && first < options.cells; ++i, first += kCellsPerBlock) {
    futures.push_back(std::async(std::launch::async, make_block, std::cref(model), first,
                                 std::min(kCellsPerBlock, options.cells - first)));
  }
  std::vector<Block> blocks;
  for (auto& future : futures) blocks.push_back(future.get());
  return blocks;
}

std::vector<std::string> numbered(const std::string& word, int64_t count) {
  std::vector<std::string> names;
  for (int64_t i = 0; i < count; ++i) names.push_back(fmt::format("{}-{}", word, i));
  return names;
}

void write_genes(H5adWriter& writer, const SynthesizeOptions& options, const CellModel& model) {
  std::vector<std::string> ids, symbols, programs = numbered("program", options.programs);
  for (int64_t gene = 0; gene < options.genes; ++gene) {
    ids.push_back(ensembl_id(gene));
    symbols.push_back(symbol(gene));
  }
  std::vector<int32_t> codes = model.gene_programs();
  std::replace(codes.begin(), codes.end(), static_cast<int32_t>(options.programs), -1);
  const bool by_id = options.gene_ids == GeneIdStyle::kEnsembl;
  writer.write_var({{.name = by_id ? "gene_symbol" : "gene_id", .kind = ColumnType::kText, .categories = {}},
                    {.name = "program", .kind = ColumnType::kCategory, .categories = std::move(programs)}},
                   {.index = by_id ? ids : symbols, .columns = {by_id ? symbols : ids, std::move(codes)}});
}

void write_provenance(H5adWriter& writer, const SynthesizeOptions& options) {
  writer.write_uns("synthesized", "source",
                   std::string("scrna-train synthesize: not measured, made by a model"));
  SynthesizeOptions copy = options;
  copy.visit([&](std::string_view key, auto& value, std::string_view /*help*/, config::Bound /*bound*/ = {}) {
    using Value = std::remove_cvref_t<decltype(value)>;
    if (key == "num_workers") return;  // does not change the cells
    const std::string name(key);
    if constexpr (std::is_enum_v<Value>) {
      for (const auto& [text, item] : enum_names(value)) {
        if (item == value) writer.write_uns("synthesized", name, std::string(text));
      }
    } else if constexpr (std::is_floating_point_v<Value>) {
      writer.write_uns("synthesized", name, static_cast<double>(value));
    } else {
      writer.write_uns("synthesized", name, static_cast<int64_t>(value));
    }
  });
}

}  // namespace

void SynthesizeOptions::validate(const std::string& path) const {
  const std::string prefix = path.empty() ? "" : path + ".";
  if (lengths == LengthDistribution::kMedian && median_genes > 8 * genes / 10) {
    throw ConfigError(
        "{}median_genes: at most 80 % of {}genes ({}) can be the median, got {}; ask for more genes", prefix,
        prefix, genes, median_genes);
  }
  constexpr int64_t kMaxRates = int64_t{1}
                                << 28;  // floats in memory: a rate per gene and type, gene and donor
  if (genes * (cell_types + donors) > kMaxRates) {
    throw ConfigError(
        "{}genes: {} genes times {} cell types and donors need too much memory; at most {} genes fit", prefix,
        genes, cell_types + donors, kMaxRates / (cell_types + donors));
  }
}

SynthesizeReport synthesize(const SynthesizeOptions& options, const std::filesystem::path& path,
                            const Progress& progress) {
  options.validate("");
  SynthesizeReport report;
  {
    const ScopedTimer timer(report.seconds);
    const CellModel model(options);
    H5adWriter writer(
        path,
        {{.name = "cell_type",
          .kind = ColumnType::kCategory,
          .categories = numbered("type", options.cell_types)},
         {.name = "donor", .kind = ColumnType::kCategory, .categories = numbered("donor", options.donors)},
         {.name = "total_counts", .kind = ColumnType::kInteger, .categories = {}},
         {.name = "n_genes", .kind = ColumnType::kInteger, .categories = {}}},
        static_cast<int>(options.gzip_level));
    write_genes(writer, options, model);
    write_provenance(writer, options);
    std::vector<int64_t> lengths;
    std::vector<Block> blocks = make_blocks(model, options, 0);
    while (!blocks.empty()) {  // the next blocks are made while these are compressed and written
      const int64_t next = writer.num_cells() + kCellsPerBlock * (std::ssize(blocks) - 1) +
                           std::ssize(blocks.back().obs.index);
      auto coming = std::async(std::launch::async,
                               [&model, &options, next] { return make_blocks(model, options, next); });
      for (const Block& block : blocks) {
        writer.append(block.cells, block.obs);
        if (lengths.size() < kLengthsKept)
          lengths.insert(lengths.end(), block.lengths.begin(), block.lengths.end());
        if (progress) progress("synthesize", writer.num_cells(), options.cells);
      }
      blocks = coming.get();
    }
    report.cells = writer.num_cells();
    report.stored_values = writer.stored_values();
    writer.commit();
    std::nth_element(lengths.begin(), lengths.begin() + std::ssize(lengths) / 2, lengths.end());
    report.median_genes = static_cast<double>(lengths[lengths.size() / 2]);
  }
  report.file_bytes = std::filesystem::file_size(path);
  return report;
}

}  // namespace scrna::data
