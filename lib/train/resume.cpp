#include "lib/train/resume.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "lib/checkpoint/checkpoint.h"
#include "lib/config/config.h"
#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/train/run_directory.h"

namespace scrna::train {
namespace {

namespace fs = std::filesystem;

// Settings (or whole sections, with a dot at the end) that do not touch the sequence of training steps. data.files may
// have moved: whether they hold the same cells is checked by their fingerprint. The vocabulary is checked by its hash.
constexpr std::array<std::string_view, 21> kFree = {"run.",
                                                    "checkpoint.",
                                                    "heldout.",
                                                    "monitor.",
                                                    "dist.",
                                                    "train.steps",
                                                    "train.on_divergence",
                                                    "train.max_recoveries",
                                                    "train.device",
                                                    "train.precision",
                                                    "train.num_threads",
                                                    "train.recompute",
                                                    "train.probe_queries",
                                                    "data.files",
                                                    "data.vocabulary",
                                                    "data.num_workers",
                                                    "data.heldout_cells",
                                                    "data.tokens_per_micro_batch",
                                                    "model.attention_kernel",
                                                    "model.attention_deterministic",
                                                    "model.gelu_precision"};
// Settings that a user may mean to change, though the curve is another one from there on.
constexpr std::array<std::string_view, 5> kBendsTheCurve = {
    "optim.", "masking.", "model.dropout", "model.attention_precision", "model.residual_precision"};

}  // namespace

std::optional<ResumePoint> resume_or_begin(const fs::path& run_dir) {
  if (run_dir.empty()) throw ConfigError("--resume auto needs run.dir, for example --set run.dir=runs/first");
  if (!fs::exists(fs::symlink_status(run_dir))) return std::nullopt;
  if (fs::is_directory(run_dir) && fs::is_empty(run_dir)) {  // made, and nothing came of it
    fs::remove(run_dir);
    return std::nullopt;
  }
  if (!fs::exists(run_dir / "config.yaml")) {
    throw ConfigError(
        "--resume auto: {} is not a run directory (it has no config.yaml); choose another run.dir",
        run_dir.string());
  }
  if (!checkpoint::steps_in(run_dir / "checkpoints").empty()) return find_resume_point("latest", run_dir);
  fs::path aside;
  for (int number = 1; aside.empty() || fs::exists(aside); ++number) {
    aside = run_dir.lexically_normal().string() + fmt::format(".without-checkpoint-{}", number);
  }
  fs::rename(run_dir, aside);
  log::warning("[resume] {} ended before its first checkpoint; it is {} now, and the run begins anew",
               run_dir.string(), aside.string());
  return std::nullopt;
}

ResumePoint find_resume_point(const std::string& argument, const fs::path& run_dir) {
  if (argument == "latest") {
    if (run_dir.empty())
      throw ConfigError("--resume latest needs run.dir, or give the run's folder: --resume PATH");
    if (!fs::exists(run_dir / "config.yaml")) {
      throw ConfigError("--resume latest: {} is not a run directory; leave out --resume to begin the run",
                        run_dir.string());
    }
    return {run_dir, checkpoint::find_latest(run_dir / "checkpoints")};
  }
  const fs::path run = RunDirectory::containing(argument);
  const fs::path canonical = fs::weakly_canonical(argument);
  const bool is_checkpoint = canonical != run && canonical != run / "checkpoints";
  return {run, is_checkpoint ? canonical : checkpoint::find_latest(run / "checkpoints")};
}

void require_compatible(const TrainConfig& before, const TrainConfig& now, const fs::path& run_directory) {
  std::string refused;
  for (const config::Difference& difference : config::differences(before, now)) {
    const std::string change =
        fmt::format("{}: {} -> {}", difference.path, difference.before, difference.after);
    if (config::is_among(kFree, difference.path)) {
      log::info("[resume] setting changed: {}", change);
    } else if (config::is_among(kBendsTheCurve, difference.path)) {
      log::warning("[resume] setting changed, the training curve is another one from here on: {}", change);
    } else {
      refused += (refused.empty() ? "" : "; ") + change;
    }
  }
  if (!refused.empty()) {
    throw ConfigError(
        "--resume: these settings differ from {} and cannot change within a run: {}. Use the run's own "
        "settings, or "
        "begin a new run",
        (run_directory / "config.yaml").string(), refused);
  }
}

}  // namespace scrna::train
