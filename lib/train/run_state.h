// What a checkpoint holds and how it gets back into the model: weights and optimizer as named tensors, and the few
// numbers of state.json. Data order, masks and dropout are pure functions of (seed, step), so no generator and no
// loader state is among them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "lib/checkpoint/checkpoint.h"
#include "lib/data/corpus.h"
#include "lib/dist/shards.h"
#include "lib/model/encoder.h"
#include "lib/optim/adamw.h"
#include "lib/train/divergence.h"

namespace scrna::train {

/// How many cells of how many tokens, in half octaves: bin i holds 2^(i/2) <= tokens < 2^((i+1)/2).
class CellsByLength {
 public:
  void add(int64_t tokens, int64_t cells = 1);
  /// First length of each bin that is not beyond the last cell, and its cells.
  [[nodiscard]] std::vector<std::pair<double, int64_t>> bins() const;

 private:
  std::vector<int64_t> counts_;
};

struct RunState {
  int64_t step = 0;  // optimizer steps done
  int64_t epoch = 0;
  int64_t cells = 0;   // seen so far, repeats counted
  int64_t tokens = 0;
  double training_seconds = 0;
  int64_t last_heldout_step = -1;  // of the newest held-out evaluation
  int64_t optimizer_updates = 0;  // steps that were applied
  int64_t data_offset = 0;        // steps' worth of data left out: step s (0-based) takes the cells of s + data_offset
  int64_t offset_since_step = 0;  // optimizer steps done when it became that
  int64_t rollbacks = 0;
  WatchState watch;
  CellsByLength cells_by_length;  // trained on by this process
  uint64_t seed = 0;
  std::string vocabulary_sha256;
  std::string training_cells_sha256;  // fingerprint_of(corpus)
  std::string gene_map_sha256;        // of the file data.gene_map; "" without one
};

/// Identifies the training cells and their order: files (names, shapes), split, vocabulary-independent.
std::string fingerprint_of(const data::Corpus& corpus);

/// AdamW's state; moments laid out like ParameterSet::values(): [N] fp32 on any device.
struct Moments {
  at::Tensor mean, squared_mean;
  int64_t num_updates = 0;
};
/// Of an optimizer that owns a part: collected over the ranks (collective), defined on the first alone, where they take
/// 8 bytes per parameter of the host's memory. shards: null when it owns everything.
Moments collect_moments(const optim::AdamW& optimizer, const dist::Shards* shards);

checkpoint::Contents snapshot(const model::Encoder& encoder, const Moments& moments, const RunState& state,
                              const std::string& config_yaml);

/// Reads state.json. Throws CheckpointError naming the folder and what is wrong.
RunState parse_state(const checkpoint::Contents& contents, const std::filesystem::path& folder);

/// Copies weights alone into the model; `file` names them in messages. Throws CheckpointError naming the tensor
/// that is missing, unknown or of another shape; then nothing was changed.
void restore_weights(const checkpoint::Safetensors& weights, const std::filesystem::path& file,
                     model::Encoder& encoder);

/// Copies weights and optimizer state (the part that the optimizer owns) into the model. Throws CheckpointError for a tensor that is missing, unknown or
/// of another shape; then nothing was changed.
void restore(const checkpoint::Contents& contents, const std::filesystem::path& folder, const RunState& state,
             model::Encoder& encoder, optim::AdamW& optimizer);

}  // namespace scrna::train
