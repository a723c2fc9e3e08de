// Going back to a checkpoint in the middle of a run (train.on_divergence: rollback), in the manner of PaLM's training
// (arXiv 2204.02311, 5.1): the weights return to the last good checkpoint, and the data go on behind the step that
// diverged, so that neither its cells nor those that led to it are met again. Learning rate and length follow optimizer
// steps, cells, masks and dropout their position in the data, whose distance to the steps is RunState::data_offset.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "lib/train/prepared_run.h"
#include "lib/train/run_directory.h"
#include "lib/train/run_state.h"
#include "lib/train/step_dump.h"

namespace scrna::train {

/// What is known of a step that diverged without asking the other ranks: all but its cells, limit, place in the data and the
/// number of ranks.
StepDump dump_of(const StepReport& report, Divergence divergence, const TrainConfig& config, const PreparedRun& run,
                 const RunState& state);

/// Ends the run: a NumericError with `what`, what became of the weights, the last checkpoint, and what to do.
[[noreturn]] void throw_diverged(const RunDirectory& directory, const StepReport& report, const std::string& what);

/// Step of the newest checkpoint of the run that is whole and of at most `last_good_step` steps. Throws NumericError,
/// saying `why` the run should go back, when there is none.
int64_t checkpoint_to_return_to(const RunDirectory& directory, int64_t last_good_step, const std::string& why);

/// Weights, optimizer and state of checkpoint `step`; the next step takes the cells of `next_data_step`. The checkpoint
/// itself stays as it was. Throws CheckpointError.
RunState return_to_checkpoint(const RunDirectory& directory, int64_t step, int64_t next_data_step,
                              model::Encoder& encoder, optim::AdamW& optimizer);

/// Removes the checkpoints of later steps, which nobody shall go on from, and moves later lines of metrics.jsonl away. For
/// the first rank, with metrics.jsonl closed.
void forget_later(const RunDirectory& directory, int64_t step);

}  // namespace scrna::train
