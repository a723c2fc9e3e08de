// Held-out loss of the masked-gene objective, next to what it costs to guess without a model. The cells and their
// masks are the same at every evaluation of every run (data::HeldoutLoader), so values are comparable over steps,
// resumes and runs that share vocabulary, split and max_tokens. All losses are nats per masked token.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "lib/data/loader.h"
#include "lib/dist/communicator.h"
#include "lib/model/encoder.h"

namespace scrna::eval {

struct HeldoutLoss {
  double loss = 0;
  double uniform_loss = 0;         // every gene of the vocabulary equally likely: log(number of genes)
  double gene_frequency_loss = 0;  // each gene as likely as it is among the tokens of the training cells
  int64_t cells = 0;
  int64_t masked_tokens = 0;
};

/// Returns true to stop early (a signal); then the result covers no more than was seen and must not be reported.
using StopRequested = std::function<bool()>;

class HeldoutEvaluator {
 public:
  /// token_frequencies [G]: data::Corpus::token_frequencies(); num_special_tokens of them lead the vocabulary and are
  /// no genes. The loader must outlive the evaluator.
  HeldoutEvaluator(data::HeldoutLoader& loader, const std::vector<int64_t>& token_frequencies,
                   int64_t num_special_tokens);

  /// Forward passes only, dropout off. False when stop() said so, on any rank; then `out` is unchanged. With
  /// a communicator each rank evaluates the cells of its loader, and all get the loss over all of them; every
  /// rank must call it. Throws DataError, on all ranks, when no held-out cell turned out to be usable.
  bool evaluate(const model::Encoder& encoder, const StopRequested& stop, HeldoutLoss& out,
                dist::Communicator* communicator = nullptr);

 private:
  data::HeldoutLoader& loader_;
  std::vector<double> gene_frequency_nats_;  // [G] -log of the smoothed frequency
  double uniform_nats_;
};

}  // namespace scrna::eval
