#include "lib/train/replay.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>
#include <ranges>

#include "lib/checkpoint/checkpoint.h"
#include "lib/config/config.h"
#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"
#include "lib/train/divergence.h"
#include "lib/train/run_directory.h"
#include "lib/train/start.h"

namespace scrna::train {
namespace {

namespace fs = std::filesystem;

bool same_bits(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b);
}

void compare(const std::string& name, double then, double now, std::vector<std::string>& differences) {
  if (!same_bits(then, now)) differences.push_back(fmt::format("{}: {:.17g} then, {:.17g} now", name, then, now));
}

void compare(const std::string& name, const std::vector<std::string>& names, const std::vector<double>& then,
             const std::vector<double>& now, std::vector<std::string>& differences) {
  if (then.size() != now.size()) {
    differences.push_back(fmt::format("{}: {} numbers then, {} now", name, then.size(), now.size()));
    return;
  }
  for (std::size_t i = 0; i < then.size(); ++i) compare(fmt::format("{}.{}", name, names.at(i)), then[i], now[i], differences);
}

// The newest checkpoint that the step can be reached from: before it, and not before the data were last moved on.
std::optional<ResumePoint> starting_point(const fs::path& run, const StepDump& dump) {
  for (const int64_t step : checkpoint::steps_in(run / "checkpoints") | std::views::reverse) {
    if (step >= dump.step || step < dump.offset_since_step) continue;
    return ResumePoint{run, run / "checkpoints" / checkpoint::folder_name(step)};
  }
  if (dump.offset_since_step > 0) {
    throw CheckpointError(
        "{}: step {} came after a rollback to step {}, and no checkpoint between them is left; keep more of them "
        "(checkpoint.keep_last)",
        run.string(), dump.step, dump.offset_since_step);
  }
  return std::nullopt;
}

TrainConfig config_for(const fs::path& run, const StepDump& dump, const std::vector<std::string>& overrides) {
  auto config = config::load<TrainConfig>(run / "config.yaml", overrides);
  config.run.dir = run.string();
  if (config.data.vocabulary.empty()) config.data.vocabulary = (run / "vocabulary.tsv").string();
  // What is measured changes no bit of the step.
  config.monitor.every_steps = dump.step;
  config.monitor.exact_scores = true;
  return config;
}

std::string reason_not_exact(const TrainConfig& config, const StepDump& dump, const PreparedRun& run) {
  if (dump.num_ranks > 1) return fmt::format("the run had {} processes, this is one: sums round differently", dump.num_ranks);
  if (dump.compute_type != c10::toString(run.compute_type) || dump.device.substr(0, 3) != run.device.str().substr(0, 3)) {
    return fmt::format("the run computed in {} on {}, this in {} on {}", dump.compute_type, dump.device,
                       c10::toString(run.compute_type), run.device.str());
  }
  if (run.device.is_cuda() && !config.model.attention_deterministic) {
    return "gradients of attention were summed in no fixed order (model.attention_deterministic: false)";
  }
  return {};
}

std::vector<DumpedCell> by_id(std::vector<DumpedCell> cells) {
  for (DumpedCell& cell : cells) cell.rank = cell.micro_batch = 0;
  std::ranges::sort(cells, {}, &DumpedCell::id);
  return cells;
}

}  // namespace

ReplayReport replay(const fs::path& dump_file, const std::vector<std::string>& overrides) {
  ReplayReport result{.dump = read_dump(dump_file), .step = {}, .checkpoint = {}, .why_not_exact = {}, .differences = {}};
  const StepDump& dump = result.dump;
  const fs::path run_folder = RunDirectory::containing(dump_file.parent_path());
  const TrainConfig config = config_for(run_folder, dump, overrides);
  const std::optional<ResumePoint> point = starting_point(run_folder, dump);
  dist::Communicator alone;
  Start start = prepare_start(config, point, choose_device(config.train.device, {}), alone);
  RunState state = point ? start.loaded->state : first_state(config, start.run);
  if (point) result.checkpoint = start.loaded->folder;
  result.first_step = state.step;
  if (state.step >= dump.offset_since_step) state.data_offset = dump.data_offset;
  result.why_not_exact = reason_not_exact(config, dump, start.run);
  result.is_exact_expected = result.why_not_exact.empty();

  log::info("[replay] step {} from {}: {} steps", dump.step,
            point ? result.checkpoint.string() : "the beginning of the run", dump.step - state.step);
  data::TrainLoader loader(*start.run.corpus, loader_options(config, state.step + state.data_offset, alone, start.run.corpus->vocabulary().size()));
  TrainStep train_step(*start.run.encoder, *start.run.optimizer, config);
  DivergenceWatch watch(config.monitor, state.watch);
  ProgressBar bar("replay", dump.step, "steps", state.step);
  std::vector<DumpedCell> cells;
  for (int64_t step = state.step; step < dump.step; ++step) {
    if (const int signal = stop_signal(); signal != 0) throw Interrupted("stopped by signal {} before step {}", signal, dump.step);
    const DeviceBatch batch = to_device(loader.next(), start.run.device);
    const bool is_last = step + 1 == dump.step;
    const double limit = watch.grad_norm_limit(step);
    result.step = train_step.launch(batch, step, limit).wait();
    bar.update(step + 1, {});
    if (is_last) {
      compare("grad_norm_limit", dump.grad_norm_limit, limit, result.differences);
      cells = cells_of(batch.micro_batches, 0);
    } else if (watch.observe(result.step) != Divergence::kNone && config.train.on_divergence != OnDivergence::kSkip) {
      result.differences.push_back(fmt::format("step {} diverged already, which it did not in the run", step + 1));
      return result;
    }
  }
  bar.finish();
  const bool are_same = dump.num_ranks == 1 ? cells == dump.cells : by_id(cells) == by_id(dump.cells);
  if (!are_same) result.differences.push_back(fmt::format("the cells: {} then, {} now, of other ids, lengths or order", dump.cells.size(), cells.size()));
  compare("loss", dump.loss, result.step.loss, result.differences);
  compare("grad_norm", dump.grad_norm, result.step.grad_norm, result.differences);
  compare("learning_rate", dump.learning_rate, result.step.learning_rate, result.differences);
  compare("grad_norm_per_layer", dump.layer_names, dump.grad_norm_per_layer, result.step.grad_norm_per_layer, result.differences);
  std::vector<std::string> blocks;
  for (std::size_t i = 0; i < dump.max_score_per_layer.size(); ++i) blocks.push_back(model::layer_name(static_cast<int64_t>(i)));
  compare("max_score_per_layer", blocks, dump.max_score_per_layer, result.step.max_score_per_layer, result.differences);
  return result;
}

}  // namespace scrna::train
