// Writes what lib/data makes of .h5ad files on their way to tokens, in a form that Python can compare with
// its own computation: vocabulary.tsv, tokens.json (choices and reports) and the tokens of every cell of
// every file as raw little-endian arrays.
//   tokens_dump OUTPUT_FOLDER MAX_TOKENS ADD_CLS FILE.h5ad...     exit code 0, or 3 with the reason on stderr
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/data/build_vocabulary.h"
#include "lib/data/corpus.h"

namespace {

using nlohmann::json;
using namespace scrna::data;

template <class T>
void write(const std::filesystem::path& path, const std::vector<T>& values) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(values.data()),
             static_cast<std::streamsize>(values.size() * sizeof(T)));
}

json dump_source(const Corpus& corpus, int32_t source, const std::filesystem::path& stem) {
  const CountMatrix& matrix = *corpus.source(source).matrix;
  Tokenizer tokenizer(corpus.vocabulary(), corpus.tokenizer_config());
  std::vector<int32_t> tokens;
  std::vector<int64_t> ends;
  constexpr int64_t kCellsPerRead = 97;
  for (int64_t first = 0; first < matrix.num_cells(); first += kCellsPerRead) {
    const CellBlock block = matrix.read(first, std::min(kCellsPerRead, matrix.num_cells() - first));
    for (std::size_t cell = 0; cell < static_cast<std::size_t>(block.num_cells()); ++cell) {
      const auto begin = static_cast<std::size_t>(block.indptr[cell]);
      const auto count = static_cast<std::size_t>(block.indptr[cell + 1]) - begin;
      tokenizer.tokenize(corpus.gene_map(source), std::span(block.genes).subspan(begin, count),
                         std::span(block.values).subspan(begin, count), tokens);
      ends.push_back(std::ssize(tokens));
    }
  }
  write(stem.string() + ".tokens.i32", tokens);
  write(stem.string() + ".ends.i64", ends);
  const TokenizerReport& report = corpus.reports()[static_cast<std::size_t>(source)].tokens;
  return {{"stem", stem.filename().string()},
          {"matrix", matrix.name()},
          {"gene_ids_from", corpus.source(source).gene_ids.source},
          {"gene_id_type", name_of(corpus.source(source).gene_ids.type)},
          {"expressed_genes", report.sum.expressed_genes},
          {"vocabulary_genes", report.sum.vocabulary_genes},
          {"kept_genes", report.sum.kept_genes},
          {"counts", report.sum.counts},
          {"vocabulary_counts", report.sum.vocabulary_counts},
          {"kept_counts", report.sum.kept_counts}};
}

void dump(const std::filesystem::path& folder, const TokenizerConfig& tokenizer,
          const std::vector<std::string>& files) {
  DataConfig config;
  config.files = files;
  config.min_genes = 1;
  config.scan_cells = int64_t{1} << 40;  // everything exactly
  config.heldout_fraction = 0;
  std::vector<CellSource> sources = open_sources(config);
  Vocabulary vocabulary = build_vocabulary(sources, 1);
  vocabulary.save(folder / "vocabulary.tsv");
  const Corpus corpus(std::move(sources), std::move(vocabulary), config, tokenizer);
  json result{{"token_frequencies", corpus.token_frequencies()}, {"files", json::array()}};
  for (int32_t source = 0; source < corpus.num_sources(); ++source) {
    result["files"].push_back(dump_source(corpus, source, folder / ("file" + std::to_string(source))));
  }
  std::ofstream(folder / "tokens.json") << result;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "usage: tokens_dump OUTPUT_FOLDER MAX_TOKENS ADD_CLS FILE.h5ad...\n";
    return 2;
  }
  scrna::log::set_console_level(scrna::log::Level::kWarning);
  try {
    dump(argv[1], {.max_tokens = std::atoll(argv[2]), .add_cls = std::atoi(argv[3]) != 0},
         {argv + 4, argv + argc});
  } catch (const scrna::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.code());
  }
  return 0;
}
