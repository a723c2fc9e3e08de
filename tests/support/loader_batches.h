// What a TrainLoader gives of a corpus, for tests.
#pragma once

#include <cstdint>
#include <vector>

#include "lib/data/loader.h"

namespace scrna::test {

inline data::LoaderOptions options_for(const data::Corpus& corpus, int64_t global_batch_cells = 64) {
  return data::loader_options(corpus.config(), data::MaskingConfig{}, 7, global_batch_cells);
}

inline std::vector<GlobalBatch> batches_of(const data::Corpus& corpus, const data::LoaderOptions& options,
                                           int64_t num_steps) {
  data::TrainLoader loader(corpus, options);
  std::vector<GlobalBatch> batches;
  for (int64_t step = 0; step < num_steps; ++step) batches.push_back(loader.next());
  return batches;
}

inline std::vector<uint64_t> cells_of(const GlobalBatch& batch) {
  std::vector<uint64_t> ids;
  for (const PackedMicroBatch& pack : batch.micro_batches)
    ids.insert(ids.end(), pack.cell_ids.begin(), pack.cell_ids.end());
  return ids;
}

}  // namespace scrna::test
