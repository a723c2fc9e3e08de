// What `scrna-train finetune` can be told. Kept with the result as finetune.yaml. The numbers that differ
// between training a head on fixed embeddings (an epoch is a few products) and training everything (an epoch
// is a pass of the encoder over all cells) are 0 here until resolved() puts the default of the mode.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/config/bound.h"
#include "lib/model/context.h"

namespace scrna::finetune {

/// What a cell counts in the loss.
enum class ClassWeights {
  kNone,     // every cell alike
  kBalanced  // cells / (classes x cells of its class), as scikit-learn's "balanced"
};
constexpr auto enum_names(ClassWeights) {
  return std::array{std::pair{std::string_view("none"), ClassWeights::kNone},
                    std::pair{std::string_view("balanced"), ClassWeights::kBalanced}};
}

struct TrainingSettings {
  int64_t epochs = 0;
  int64_t patience = 0;
  int64_t batch_cells = 0;
  double learning_rate = 5e-5;
  double head_learning_rate = 0;
  double weight_decay = 0.01;
  double clip_norm = 1;
  double warmup_fraction = 0.05;
  ClassWeights class_weights = ClassWeights::kNone;
  double heldout_fraction = 0.2;
  uint64_t seed = 0;
  int64_t tokens_per_pack = 0;
  model::Recompute recompute = model::Recompute::kNone;

  template <class V>
  void visit(V&& v) {
    v("epochs", epochs, "passes over the training cells, at most; 0: 10, with --frozen 200",
      config::between(0, 1e6));
    v("patience", patience,
      "epochs without a better held-out macro F1 after which training ends; 0: 3, with --frozen 20",
      config::between(0, 1e6));
    v("batch_cells", batch_cells, "cells of one optimizer step; 0: 32, with --frozen 256",
      config::between(0, 1e6));
    v("learning_rate", learning_rate, "peak learning rate of the encoder; --frozen has no use for it",
      config::above(0));
    v("head_learning_rate", head_learning_rate, "peak learning rate of the head; 0: 1e-3, with --frozen 1e-2",
      config::between(0, 10));
    v("weight_decay", weight_decay, "AdamW's, of matrices", config::at_least(0));
    v("clip_norm", clip_norm, "scale gradients down to this global L2 norm; 0: never clip",
      config::at_least(0));
    v("warmup_fraction", warmup_fraction,
      "part of all steps in which the learning rates rise; then they fall as a cosine to a tenth",
      config::between(0, 1));
    v("class_weights", class_weights,
      "none: every cell counts alike in the loss; balanced: every class does");
    v("heldout_fraction", heldout_fraction,
      "part of the labelled cells that is not trained on: of every class, or with --split-by of the groups",
      config::Bound{.low = 0, .high = 1, .low_is_excluded = true, .high_is_excluded = true});
    v("seed", seed, "of the split, the order of cells, the head's first weights and dropout");
    v("tokens_per_pack", tokens_per_pack,
      "tokens of one forward pass, at most; 0: 16,384 on a GPU, 8,192 on the CPU",
      config::between(0, 16777216));
    v("recompute", recompute,
      "what the backward pass computes again instead of keeping it, to save memory: none, feed_forward or "
      "block");
  }
};

struct FinetuneConfig {
  std::string label;
  std::vector<std::string> files;
  std::vector<std::string> ignored_labels;
  std::string split_by;
  bool drop_rare_classes = false;
  bool frozen = false;
  TrainingSettings training;

  template <class V>
  void visit(V&& v) {
    v("label", label, "obs column with the classes");
    v("files", files, "labelled .h5ad files");
    v("ignored_labels", ignored_labels, "values of the column that are no class");
    v("split_by", split_by, "obs column whose groups are held out whole; empty: cells are, of every class");
    v("drop_rare_classes", drop_rare_classes, "leave out classes with fewer than 2 cells in either part");
    v("frozen", frozen, "the encoder stays as it is; only the head is trained");
    v("training", training, "how it is trained");
  }
};

/// The defaults of the mode in place of zeros.
inline FinetuneConfig resolved(FinetuneConfig config, bool on_gpu) {
  TrainingSettings& training = config.training;
  const auto or_default = [](auto& value, auto otherwise) {
    if (value == 0) value = otherwise;
  };
  or_default(training.epochs, config.frozen ? int64_t{200} : int64_t{10});
  or_default(training.patience, config.frozen ? int64_t{20} : int64_t{3});
  or_default(training.batch_cells, config.frozen ? int64_t{256} : int64_t{32});
  or_default(training.head_learning_rate, config.frozen ? 1e-2 : 1e-3);
  or_default(training.tokens_per_pack, on_gpu ? int64_t{16384} : int64_t{8192});
  return config;
}

}  // namespace scrna::finetune
