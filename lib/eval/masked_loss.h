// Masked-gene loss as the paper validates it (arXiv 2604.27124, A.3.3): every cell with several independent maskings, mean
// over them, then mean over cells with a 95 % interval over cells. A pack holds one cell several times, each time
// with another mask, so its loss is that cell's; nothing need be told apart afterwards. Comparable between models that
// share vocabulary and max_tokens only: others hide other genes.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "lib/data/corpus.h"

namespace scrna::model {
class Encoder;
}

namespace scrna::eval {

struct MaskedLoss {
  double mean = 0;              // nats per masked token, mean over cells
  double half_width = 0;        // 95 % interval: mean +- this, 1.96 standard errors over cells
  double uniform = 0;           // every gene of the vocabulary equally likely
  double gene_frequency = 0;    // each gene as likely as it is common: cells that express it where the vocabulary was built,
                                // plus one; mean over the same cells and masks
  int64_t cells = 0;            // those without enough genes are passed over
  int64_t maskings = 0;
};

struct MaskedLossOptions {
  int64_t num_maskings = 15;
  double mask_fraction = 0.15;
  int64_t tokens_per_pack = 8192;  // at most; a longer cell makes a pack of its own
};

/// Rows [ascending] of a source of the corpus. Forward passes only. Masking m of a cell is the same for every model and
/// run; masking 0 is that of the held-out loss in training. keep_going: called with the cells done, false: stop (then
/// `cells` says how many were seen). Throws DataError when none of the cells has tokens.
MaskedLoss masked_loss(const model::Encoder& encoder, const data::Corpus& corpus, int32_t source,
                       std::span<const int64_t> rows, const MaskedLossOptions& options,
                       const std::function<bool(int64_t cells_done)>& keep_going = {});

}  // namespace scrna::eval
