#include "lib/eval/heldout_loss.h"

#include <cmath>
#include <numeric>

#include <ATen/core/Tensor.h>

#include "lib/core/error.h"
#include "lib/model/token_tensors.h"

namespace scrna::eval {

// Add-one smoothing: a gene that no training cell kept would otherwise cost infinitely many nats.
HeldoutEvaluator::HeldoutEvaluator(data::HeldoutLoader& loader, const std::vector<int64_t>& token_frequencies,
                                   int64_t num_special_tokens)
    : loader_(loader),
      gene_frequency_nats_(token_frequencies.size()),
      uniform_nats_(std::log(static_cast<double>(std::ssize(token_frequencies) - num_special_tokens))) {
  const auto first_gene = token_frequencies.begin() + num_special_tokens;
  const auto total = std::accumulate(first_gene, token_frequencies.end(), int64_t{0}) +
                     std::distance(first_gene, token_frequencies.end());
  for (std::size_t token = 0; token < token_frequencies.size(); ++token) {
    gene_frequency_nats_[token] =
        std::log(static_cast<double>(total)) - std::log(static_cast<double>(token_frequencies[token] + 1));
  }
}

bool HeldoutEvaluator::evaluate(const model::Encoder& encoder, const StopRequested& stop, HeldoutLoss& out,
                                dist::Communicator* communicator) {
  double loss_sum = 0, gene_frequency_sum = 0;
  int64_t cells = 0, masked_tokens = 0;
  bool is_stopped = false;
  loader_.rewind();
  for (PackedMicroBatch pack; !(is_stopped = stop()) && loader_.next(pack);) {
    model::ForwardContext context{.training = false};
    loss_sum += encoder.masked_loss_sum(model::to_device(pack, encoder.device()), context).item<double>();
    for (const int32_t target : pack.masked_targets) {
      gene_frequency_sum += gene_frequency_nats_[static_cast<std::size_t>(target)];
    }
    cells += pack.num_cells();
    masked_tokens += pack.num_masked();
  }
  if (communicator != nullptr) {
    const std::vector<double> sums =
        communicator->sum({is_stopped ? 1.0 : 0.0, loss_sum, gene_frequency_sum, static_cast<double>(cells),
                           static_cast<double>(masked_tokens)});
    is_stopped = sums[0] > 0;
    loss_sum = sums[1];
    gene_frequency_sum = sums[2];
    cells = static_cast<int64_t>(sums[3]);
    masked_tokens = static_cast<int64_t>(sums[4]);
  }
  if (is_stopped) return false;
  if (masked_tokens == 0) {  // of a corpus that is not whole; every rank comes here
    throw DataError(
        "none of the held-out cells has enough genes of the vocabulary (data.min_genes), though they store as many "
        "entries; hold out others (data.heldout_column, data.heldout_seed), leave them out with data.filter, or read "
        "all cells before the first step (data.scan_cells)");
  }
  const auto count = static_cast<double>(masked_tokens);
  out = {.loss = loss_sum / count,
         .uniform_loss = uniform_nats_,
         .gene_frequency_loss = gene_frequency_sum / count,
         .cells = cells,
         .masked_tokens = masked_tokens};
  return true;
}

}  // namespace scrna::eval
