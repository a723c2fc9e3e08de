// A step that diverged as a small file, divergence/step-NNNNNNNN.json of its run: which cells, what came of them, and
// what it takes to do it again exactly (replay.h). Weights are not in it: they follow from the run's configuration and the
// newest checkpoint before the step, or from its beginning.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lib/train/device_batch.h"
#include "lib/train/divergence.h"
#include "lib/train/step.h"

namespace scrna::train {

/// A cell of the step, in the order of the packs.
struct DumpedCell {
  int64_t rank = 0;
  int64_t micro_batch = 0;  // of that rank
  uint64_t id = 0;          // lib/data: stable in its data set
  int64_t tokens = 0;

  bool operator==(const DumpedCell&) const = default;
};

struct StepDump {
  int64_t step = 0;       // optimizer steps with this one: the first is 1
  int64_t data_step = 0;  // 0-based position in the data: with `seed` the key of the step's masks, dropout and probes
  int64_t epoch = 0;
  uint64_t seed = 0;
  /// Data left out by rollbacks: data_step = step - 1 + data_offset, since offset_since_step optimizer steps were done.
  int64_t data_offset = 0;
  int64_t offset_since_step = 0;
  std::string reason;
  std::string policy;  // train.on_divergence
  double loss = 0, grad_norm = 0, learning_rate = 0;
  double grad_norm_limit = 0;  // infinite: none
  bool is_applied = false;
  std::vector<std::string> layer_names;
  std::vector<double> grad_norm_per_layer;
  std::vector<double> max_score_per_layer;
  int64_t tokens = 0, masked_tokens = 0;
  int64_t num_ranks = 1;
  std::string device, compute_type;
  std::vector<DumpedCell> cells;
};

/// The cells of micro-batches, of which only cell_ids and cu_seqlens_host are read. Waits for a GPU.
std::vector<DumpedCell> cells_of(const std::vector<model::TokenTensors>& micro_batches, int64_t rank);
/// One rank's cells as text and back, for gathering them.
std::string cells_text(const std::vector<DumpedCell>& cells);
void append_cells(const std::string& text, std::vector<DumpedCell>& cells);

/// "step-00000007.json"
std::string dump_name(int64_t step);
/// Writes it whole or not at all. Numbers that are not finite are written as "nan", "inf", "-inf". Throws DataError.
void write_dump(const std::filesystem::path& file, const StepDump& dump);
/// Throws DataError when the file cannot be read or is no dump.
StepDump read_dump(const std::filesystem::path& file);

}  // namespace scrna::train
