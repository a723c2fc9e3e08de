// The whole configuration of a training run: every section, in the order in which `--print-config` shows them and
// configs/README.md explains them. A section that belongs to a library is declared there; here stand the sections of
// the trainer itself. Defaults are those of arXiv 2604.27124, Table 2, where it says something.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "lib/config/bound.h"
#include "lib/core/error.h"
#include "lib/data/data_config.h"
#include "lib/dist/dist_config.h"
#include "lib/model/context.h"
#include "lib/model/model_config.h"
#include "lib/optim/optim_config.h"
#include "lib/train/monitor.h"

namespace scrna::train {

enum class DeviceChoice { kAuto, kCpu, kCuda };
constexpr auto enum_names(DeviceChoice) {
  return std::array{std::pair{std::string_view("auto"), DeviceChoice::kAuto},
                    std::pair{std::string_view("cpu"), DeviceChoice::kCpu},
                    std::pair{std::string_view("cuda"), DeviceChoice::kCuda}};
}

enum class Precision { kAuto, kFp32, kBf16 };
constexpr auto enum_names(Precision) {
  return std::array{std::pair{std::string_view("auto"), Precision::kAuto},
                    std::pair{std::string_view("fp32"), Precision::kFp32},
                    std::pair{std::string_view("bf16"), Precision::kBf16}};
}

/// What follows a step that diverges (divergence.h).
enum class OnDivergence { kStop, kSkip, kRollback };
constexpr auto enum_names(OnDivergence) {
  return std::array{std::pair{std::string_view("stop"), OnDivergence::kStop},
                    std::pair{std::string_view("skip"), OnDivergence::kSkip},
                    std::pair{std::string_view("rollback"), OnDivergence::kRollback}};
}

struct RunSection {
  std::string dir;

  template <class V>
  void visit(V&& v) {
    v("dir", dir, "folder that the run creates and writes everything into; must not exist yet");
  }
};

struct TrainSection {
  int64_t steps = 1000;
  int64_t global_batch_cells = 256;
  uint64_t seed = 42;
  std::string initial_weights;
  DeviceChoice device = DeviceChoice::kAuto;
  Precision precision = Precision::kAuto;
  int64_t num_threads = 0;
  model::Recompute recompute = model::Recompute::kNone;
  int64_t probe_queries = 32;
  OnDivergence on_divergence = OnDivergence::kStop;
  int64_t max_recoveries = 10;

  template <class V>
  void visit(V&& v) {
    v("steps", steps, "optimizer steps of the whole run", config::between(1, 1e9));
    v("global_batch_cells", global_batch_cells, "cells of one optimizer step, over all its micro-batches",
      config::between(1, 1e6));
    v("seed", seed, "root of every random stream: initial weights, order of cells, masks, dropout");
    v("initial_weights", initial_weights,
      "trained model to begin with instead of drawn weights: a run directory, a checkpoint folder or an exported file "
      "(scrna-train export); its vocabulary is taken, the settings of model and tokenizer must be its own; empty: none");
    v("device", device, "auto: a GPU if there is one, else the CPU; cpu; cuda: a GPU or an error");
    v("precision", precision,
      "type of matrix products and attention; weights, gradients and optimizer stay fp32. auto: bf16 on a GPU, "
      "fp32 on the CPU");
    v("num_threads", num_threads, "CPU threads that compute; 0: one per core", config::between(0, 1024));
    v("recompute", recompute,
      "what the backward pass computes again instead of keeping it, to save memory: none; feed_forward: the inside of "
      "the feed-forward layers; block: all but the input of each block. The results are the same but for the order of sums in attention's backward pass on a "
      "GPU (model.attention_deterministic)");
    v("probe_queries", probe_queries,
      "query rows of each micro-batch sampled for max_score_per_layer; 0: not measured",
      config::between(0, 4096));
    v("on_divergence", on_divergence,
      "when a step's loss or gradients are not finite or explode (monitor.explosion_factor), which is never applied. stop: "
      "the run ends with exit code 4; skip: it goes on with the next cells; rollback: it goes on from the last checkpoint "
      "with cells it has not seen. In each case the step is written to divergence/");
    v("max_recoveries", max_recoveries,
      "with skip, steps in a row, with rollback, rollbacks in all, after which the run stops all the same",
      config::between(1, 1e6));
  }
};

struct HeldoutSection {
  int64_t every_steps = 200;

  template <class V>
  void visit(V&& v) {
    v("every_steps", every_steps,
      "optimizer steps between evaluations on the held-out cells (also before the first and after the last); 0: "
      "never",
      config::at_least(0));
  }
};

struct CheckpointSection {
  int64_t every_steps = 500;
  int64_t keep_last = 3;
  bool save_last = true;

  template <class V>
  void visit(V&& v) {
    v("every_steps", every_steps, "optimizer steps between checkpoints (also after the last: save_last); 0: only then",
      config::at_least(0));
    v("keep_last", keep_last, "newest checkpoints kept; older ones are removed", config::between(1, 1e6));
    v("save_last", save_last, "save after the last step; false: for runs that only their curves are wanted of. A run that is asked to stop saves in any case");
  }
};

struct TrainConfig {
  RunSection run;
  data::DataConfig data;
  data::TokenizerConfig tokenizer;
  data::MaskingConfig masking;
  model::ModelConfig model;
  optim::OptimConfig optim;
  TrainSection train;
  HeldoutSection heldout;
  MonitorSection monitor;
  CheckpointSection checkpoint;
  dist::DistConfig dist;

  template <class V>
  void visit(V&& v) {
    v("run", run, "where the run is kept");
    v("data", data, "cells: files, matrix, genes, split, reading");
    v("tokenizer", tokenizer, "from counts to tokens");
    v("masking", masking, "the objective: which tokens are hidden");
    v("model", model, "architecture of the encoder");
    v("optim", optim, "AdamW, learning rate, clipping");
    v("train", train, "length, batch, device, precision");
    v("heldout", heldout, "evaluation during training");
    v("monitor", monitor, "what is watched, and when training counts as diverged");
    v("checkpoint", checkpoint, "saving");
    v("dist", dist, "several processes, one per GPU");
  }

  void validate(const std::string& /*path*/) const {
    if (heldout.every_steps > 0 && data.heldout_fraction <= 0) {
      throw ConfigError(
          "heldout.every_steps: {}, but data.heldout_fraction is 0, so nothing is held out; set one to 0 or the "
          "other above 0",
          heldout.every_steps);
    }
    if (optim.warmup_steps > train.steps) {
      throw ConfigError(
          "optim.warmup_steps: {} exceeds train.steps = {}: the learning rate would never reach its peak; lower "
          "it",
          optim.warmup_steps, train.steps);
    }
  }
};

}  // namespace scrna::train
