// Epochs of training a classifier, with the held-out cells predicted after each:
//
//   a pack of whole cells -> encoder -> mean over each cell's tokens (embed's) -> head -> cross-entropy
//
// In full training the gradient goes all the way back; encoder and head have an AdamW each, with learning
// rates of their own and one global norm to clip. Frozen, every cell is embedded once and epochs see the
// embeddings alone. Held-out cells go through eval::embed_cells() and HeadWeights::probabilities(), as cells
// to annotate do later. On the CPU the result is a function of data, settings and seed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "lib/finetune/classification_head.h"
#include "lib/finetune/classification_report.h"
#include "lib/finetune/finetune_config.h"
#include "lib/finetune/labelled_cells.h"
#include "lib/optim/adamw.h"
#include "lib/train/embed_file.h"

namespace scrna::finetune {

struct Epoch {
  int64_t epoch = 0;  // the first is 1
  int64_t steps = 0;  // optimizer steps done
  double training_loss = 0,
         heldout_loss = 0;  // nats per cell, weighted as class_weights says; held-out ones not
  double learning_rate = 0, head_learning_rate = 0;  // of its last step
  double seconds = 0;
  bool is_best = false;
  at::Tensor probabilities;  // [held-out cells, C] fp32 on the CPU
  ClassificationReport report;
};

struct TrainingCallbacks {
  /// Before each step: steps done and steps of all epochs. False: stop.
  std::function<bool(int64_t steps, int64_t total_steps)> keep_going;
  /// While cells are embedded, once before the first epoch: cells done, of all. False: stop.
  std::function<bool(int64_t cells, int64_t total)> keep_embedding;
  /// After each epoch, encoder and head being as it left them.
  std::function<void(const Epoch& epoch)> on_epoch;
};

class ClassifierTraining {
 public:
  /// All must outlive this object. config: resolved(). With config.frozen the embedder's encoder stays as it
  /// is.
  ClassifierTraining(train::Embedder& embedder, const LabelledCells& cells, const Split& split,
                     const FinetuneConfig& config);

  /// Trains until the last epoch, or until `patience` epochs in a row were not better than the best before: a
  /// larger held-out macro F1, or the same with a smaller held-out loss. Returns false when a callback said
  /// to stop. Throws NumericError when the loss is not finite.
  bool run(const TrainingCallbacks& callbacks);

  /// Exists from the first epoch on.
  [[nodiscard]] const ClassificationHead& head() const { return *head_; }

 private:
  [[nodiscard]] bool embed(const TrainingCallbacks& callbacks);
  [[nodiscard]] std::optional<at::Tensor> embed_part(
      const std::vector<int64_t>& part, int64_t done, int64_t total,
      const std::function<bool(int64_t, int64_t)>& keep_going) const;
  [[nodiscard]] bool train_epoch(int64_t epoch, const TrainingCallbacks& callbacks, Epoch& out);
  void frozen_step(const std::vector<int64_t>& places);
  void full_step(const std::vector<int64_t>& places);
  void add_gradients(const std::vector<int64_t>& members, std::size_t pack, double scale);
  void update(double weight_sum);
  [[nodiscard]] bool predict(const TrainingCallbacks& callbacks, Epoch& out);
  [[nodiscard]] std::vector<int64_t> order_of(int64_t epoch) const;

  train::Embedder& embedder_;
  const LabelledCells& cells_;
  const Split& split_;
  const FinetuneConfig& config_;
  at::Device device_;
  std::vector<float> class_weights_;  // [C]
  at::Tensor training_rows_,
      heldout_rows_;  // [cells, D] embeddings before training; on the device, on the CPU
  std::unique_ptr<ClassificationHead> head_;
  std::unique_ptr<optim::AdamW> encoder_optimizer_, head_optimizer_;  // the former null when frozen
  at::Tensor loss_sum_;                                               // 0-d fp64 on the device, of the epoch
  double weight_sum_ = 0;                                             // of the epoch
  double learning_rate_ = 0, head_learning_rate_ = 0;
  int64_t steps_ = 0, total_steps_ = 0;
};

/// Encoder parameters that a classifier trains: all but the output head for genes, which it does not read, as
/// ranges for optim::AdamW. With those alone weight decay does not shrink that head either.
std::vector<ElementRange> trained_ranges(const model::Encoder& encoder);

}  // namespace scrna::finetune
