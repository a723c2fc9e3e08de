// A corpus of cells in memory, spread over several files: for tests of everything that reads through a
// Corpus.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/core/random.h"
#include "lib/data/build_vocabulary.h"
#include "lib/data/corpus.h"
#include "tests/support/memory_matrix.h"

namespace scrna::test {

inline constexpr int32_t kCorpusGenes = 60;

inline std::vector<std::string> corpus_genes() {
  std::vector<std::string> genes;
  for (int32_t i = 0; i < kCorpusGenes; ++i) genes.push_back("GENE" + std::to_string(i));
  return genes;
}

/// Cells with up to 40 genes; every 13th has none.
inline std::vector<Row> corpus_rows(int64_t num_cells, uint64_t seed) {
  const RandomStream stream(seed, RandomPurpose::kInit);
  std::vector<Row> rows(static_cast<std::size_t>(num_cells));
  uint64_t draw = 0;
  for (std::size_t cell = 0; cell < rows.size(); ++cell) {
    if (cell % 13 == 12) continue;
    const uint64_t num_genes = 1 + stream.below(40, draw++);
    for (uint64_t i = 0; i < num_genes; ++i)
      rows[cell][static_cast<int32_t>(stream.below(kCorpusGenes, draw + 2 * i))] =
          static_cast<float>(1 + stream.below(20, draw + 2 * i + 1));
    draw += 2 * num_genes;
  }
  return rows;
}

inline std::vector<data::CellSource> corpus_sources(const std::vector<int64_t>& cells_of_file) {
  std::vector<data::CellSource> sources;
  for (std::size_t file = 0; file < cells_of_file.size(); ++file)
    sources.push_back(make_source("folder/file" + std::to_string(file) + ".h5ad", corpus_genes(),
                                  corpus_rows(cells_of_file[file], file + 1)));
  return sources;
}

inline data::DataConfig corpus_config() {
  data::DataConfig config;
  config.min_genes = 1;
  config.heldout_fraction = 0.1;
  config.shuffle_block_cells = 16;
  config.shuffle_window_cells = 100;
  config.tokens_per_micro_batch = 256;
  return config;
}

inline data::Corpus make_corpus(std::vector<data::CellSource> sources,
                                const data::DataConfig& config = corpus_config(),
                                const data::TokenizerConfig& tokenizer = {.max_tokens = 32}) {
  data::Vocabulary vocabulary = data::build_vocabulary(sources, 1);
  return {std::move(sources), std::move(vocabulary), config, tokenizer};
}
inline data::Corpus make_corpus(const std::vector<int64_t>& cells_of_file,
                                const data::DataConfig& config = corpus_config()) {
  return make_corpus(corpus_sources(cells_of_file), config);
}

}  // namespace scrna::test
