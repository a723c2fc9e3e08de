#include "lib/eval/masked_loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <ATen/core/Tensor.h>

#include "lib/core/error.h"
#include "lib/core/random.h"
#include "lib/data/cell_tokens.h"
#include "lib/data/packing.h"
#include "lib/model/encoder.h"
#include "lib/model/token_tensors.h"

namespace scrna::eval {
namespace {

constexpr int64_t kWindowCells = 512;  // read and tokenized together

RandomStream stream_of(uint64_t cell_id, int64_t masking) {
  return {static_cast<uint64_t>(masking), RandomPurpose::kMask, ~uint64_t{0}, cell_id};
}

/// Sum of losses and of masked tokens of one cell over all maskings.
struct CellLoss {
  double sum = 0;
  double frequency_sum = 0;  // of guessing by how common genes are
  int64_t masked_tokens = 0;
};

/// [V] -log of each gene's part of all expressed genes of the cells that the vocabulary was built from, one added to each.
std::vector<double> frequency_nats(const data::Vocabulary& vocabulary) {
  double total = 0;
  for (const data::Gene& gene : vocabulary.genes()) total += static_cast<double>(gene.cells) + 1;
  std::vector<double> nats(vocabulary.size());
  for (int32_t token = data::Vocabulary::kNumSpecial; token < vocabulary.size(); ++token)
    nats[token] = std::log(total / (static_cast<double>(vocabulary.gene(token).cells) + 1));
  return nats;
}

CellLoss loss_of(const model::Encoder& encoder, std::span<const int32_t> tokens, uint64_t cell_id,
                 const std::vector<double>& frequency_nats, const MaskedLossOptions& options) {
  CellLoss out;
  data::Packer packer(options.tokens_per_pack, options.mask_fraction);
  const auto run = [&] {
    const PackedMicroBatch pack = packer.take();
    model::ForwardContext context{.training = false};
    out.sum += encoder.masked_loss_sum(model::to_device(pack, encoder.device()), context).item<double>();
    out.masked_tokens += pack.num_masked();
    for (const int32_t target : pack.masked_targets) out.frequency_sum += frequency_nats[target];
  };
  for (int64_t masking = 0; masking < options.num_maskings; ++masking) {
    if (packer.is_full_for(std::ssize(tokens))) run();
    packer.add(tokens, cell_id, stream_of(cell_id, masking));
  }
  run();
  return out;
}

}  // namespace

MaskedLoss masked_loss(const model::Encoder& encoder, const data::Corpus& corpus, int32_t source,
                       std::span<const int64_t> rows, const MaskedLossOptions& options,
                       const std::function<bool(int64_t cells_done)>& keep_going) {
  SCRNA_CHECK(options.num_maskings > 0 && std::is_sorted(rows.begin(), rows.end()), "{} maskings", options.num_maskings);
  const std::vector<double> nats = frequency_nats(corpus.vocabulary());
  std::vector<double> losses;
  double frequency_losses = 0;
  data::TokenizedCells window;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (keep_going && !keep_going(static_cast<int64_t>(i))) break;
    if (rows[i] >= window.first_cell + window.num_cells()) {
      const int64_t cells = corpus.source(source).matrix->num_cells();
      window = data::tokenize_cells(corpus, source, rows[i], std::min(kWindowCells, cells - rows[i]));
    }
    const std::span<const int32_t> tokens = window.tokens_of(rows[i] - window.first_cell);
    if (tokens.empty()) continue;
    const CellLoss loss = loss_of(encoder, tokens, corpus.cell_id(source, rows[i]), nats, options);
    if (!std::isfinite(loss.sum))
      throw NumericError("masked loss of cell {}: not finite; the model's weights may have diverged", rows[i]);
    losses.push_back(loss.sum / static_cast<double>(loss.masked_tokens));
    frequency_losses += loss.frequency_sum / static_cast<double>(loss.masked_tokens);
  }
  if (losses.empty())
    throw DataError("masked loss: none of the {} cells has enough genes of the vocabulary (data.min_genes)", rows.size());
  MaskedLoss out{.cells = std::ssize(losses), .maskings = options.num_maskings};
  const auto n = static_cast<double>(losses.size());
  for (const double loss : losses) out.mean += loss / n;
  double squares = 0;
  for (const double loss : losses) squares += (loss - out.mean) * (loss - out.mean);
  out.half_width = losses.size() > 1 ? 1.96 * std::sqrt(squares / (n - 1) / n) : 0;
  out.gene_frequency = frequency_losses / n;
  out.uniform = std::log(static_cast<double>(std::ssize(corpus.vocabulary().genes())));
  return out;
}

}  // namespace scrna::eval
