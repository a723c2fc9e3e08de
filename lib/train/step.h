// One optimizer step on the cells of a global batch:
//
//   zero the gradients; for each micro-batch: forward, sum of the masked tokens' cross-entropy divided by the masked
//   tokens of the whole global batch, backward; gradient norms; clip; AdamW.
//
// So the loss is the mean over all masked tokens of the global batch, however the cells were packed. A step whose loss
// or gradients are not finite changes nothing but says so; the trainer decides what follows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <c10/core/ScalarType.h>

#include "lib/core/micro_batch.h"
#include "lib/model/encoder.h"
#include "lib/optim/adamw.h"
#include "lib/train/train_config.h"

namespace scrna::train {

struct PhaseSeconds {
  double data_wait = 0;
  double forward = 0;
  double backward = 0;
  double optimizer = 0;  // gradient norms, clipping and AdamW
  double total = 0;
};

struct StepReport {
  int64_t step = 0;   // optimizer steps done, this one included: the first is 1
  int64_t epoch = 0;  // 0-based, of the first cell
  double loss = 0;    // nats per masked token
  double learning_rate = 0;
  double grad_norm = 0;                     // global L2 norm before clipping
  std::vector<double> grad_norm_per_layer;  // as ParameterSet::layer_names()
  std::vector<double> max_score_per_layer;  // [L] largest |score| of the sampled queries; empty without the probe
  int64_t tokens = 0;
  int64_t masked_tokens = 0;
  int64_t cells = 0;
  int64_t micro_batches = 0;
  PhaseSeconds seconds;
  bool is_finite = true;  // false: the weights were left as they are
};

class TrainStep {
 public:
  /// All arguments must outlive this object.
  TrainStep(model::Encoder& encoder, optim::AdamW& optimizer, const TrainConfig& config,
            at::ScalarType compute_type);
  /// Throws InternalError for an empty batch, c10::Error when LibTorch fails (out of memory).
  StepReport operator()(const GlobalBatch& batch);

 private:
  void accumulate(const GlobalBatch& batch, std::size_t index, StepReport& report);
  void measure_gradients(StepReport& report);

  model::Encoder& encoder_;
  optim::AdamW& optimizer_;
  const TrainConfig& config_;
  at::ScalarType compute_type_;
};

}  // namespace scrna::train
