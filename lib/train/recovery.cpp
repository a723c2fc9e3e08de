#include "lib/train/recovery.h"

#include <algorithm>
#include <ranges>

#include "lib/checkpoint/checkpoint.h"
#include "lib/config/config.h"
#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/train/metrics.h"

namespace scrna::train {

namespace fs = std::filesystem;

StepDump dump_of(const StepReport& report, Divergence divergence, const TrainConfig& config, const PreparedRun& run,
                 const RunState& state) {
  return {.step = report.step,
          .data_step = 0,
          .epoch = report.epoch,
          .seed = config.train.seed,
          .data_offset = state.data_offset,
          .offset_since_step = state.offset_since_step,
          .reason = std::string(describe(divergence)),
          .policy = std::string(config::name_of(config.train.on_divergence)),
          .loss = report.loss,
          .grad_norm = report.grad_norm,
          .learning_rate = report.learning_rate,
          .grad_norm_limit = 0,
          .is_applied = report.is_applied,
          .layer_names = run.encoder->parameters().layer_names(),
          .grad_norm_per_layer = report.grad_norm_per_layer,
          .max_score_per_layer = report.max_score_per_layer,
          .tokens = report.tokens,
          .masked_tokens = report.masked_tokens,
          .num_ranks = 1,
          .device = run.device.str(),
          .compute_type = c10::toString(run.compute_type),
          .cells = {}};
}

void throw_diverged(const RunDirectory& directory, const StepReport& report, const std::string& what) {
  const std::string last_good = fs::exists(directory.checkpoints() / "latest")
                                    ? fmt::format("the last checkpoint is {}",
                                                  fs::canonical(directory.checkpoints() / "latest").string())
                                    : "no checkpoint was saved before";
  throw NumericError("{}; {}{}. Lower optim.learning_rate, set optim.clip_norm, or train in fp32; train.on_divergence says what "
                     "else may follow",
                     what,
                     report.is_applied ? "" : fmt::format("the weights were left as they were after step {}, ", report.step - 1),
                     last_good);
}

int64_t checkpoint_to_return_to(const RunDirectory& directory, int64_t last_good_step, const std::string& why) {
  for (const int64_t step : checkpoint::steps_in(directory.checkpoints()) | std::views::reverse) {
    if (step > last_good_step) continue;
    const fs::path folder = directory.checkpoints() / checkpoint::folder_name(step);
    try {
      static_cast<void>(checkpoint::load(folder));
      return step;
    } catch (const CheckpointError& problem) {
      log::warning("[rollback] {}", problem.what());
    }
  }
  throw NumericError(
      "{}; train.on_divergence is rollback, but there is no checkpoint of step {} or before; lower checkpoint.every_steps, "
      "or choose skip or stop",
      why, last_good_step);
}

RunState return_to_checkpoint(const RunDirectory& directory, int64_t step, int64_t next_data_step, model::Encoder& encoder,
                              optim::AdamW& optimizer) {
  const fs::path folder = directory.checkpoints() / checkpoint::folder_name(step);
  const checkpoint::Contents contents = checkpoint::load(folder);
  RunState state = parse_state(contents, folder);
  restore(contents, folder, state, encoder, optimizer);
  state.data_offset = next_data_step - state.step;
  state.offset_since_step = state.step;
  return state;
}

void forget_later(const RunDirectory& directory, int64_t step) {
  for (const int64_t later : checkpoint::steps_in(directory.checkpoints())) {
    if (later <= step) continue;
    const fs::path folder = directory.checkpoints() / checkpoint::folder_name(later);
    fs::remove_all(folder);
    log::info("[rollback] removed {}, which is of diverged weights", folder.string());
  }
  const fs::path latest = directory.checkpoints() / "latest";
  if (fs::is_symlink(latest) && !fs::exists(latest)) fs::remove(latest);
  rewind_metrics(directory.metrics(), step);
}

}  // namespace scrna::train
