// The cells that `bench train` trains on: synthetic, of one length distribution, random genes, masked as
// training masks. No data path: what is measured is the step alone, so that a real run can be compared with
// it. The same cells every time: lengths and genes come from fixed seeds.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/core/micro_batch.h"
#include "lib/train/flops.h"

namespace scrna::bench {

enum class Lengths { kCellxgene, kFull };
constexpr auto enum_names(Lengths) {
  return std::array{std::pair{std::string_view("cellxgene"), Lengths::kCellxgene},
                    std::pair{std::string_view("full"), Lengths::kFull}};
}

struct TrainProblem {
  Lengths lengths = Lengths::kCellxgene;
  int64_t cells = 0;       // 0: 32, or of full length as many as make 65,536 tokens
  int64_t context = 8192;  // longest cell
  int64_t vocabulary = 0;  // V: genes and special tokens
  double mask_fraction = 0.15;
  int64_t tokens_per_micro_batch = 65536;
};

/// Tokens of each cell. kCellxgene: log2-normal(10.75, 1.25) clipped to 200 ... min(context, 8192). The
/// default 32 cells make 65,273 tokens, the load at which other stacks were measured (README.md). kFull: all
/// of `context`.
std::vector<int32_t> cell_lengths(const TrainProblem& problem);

/// The cells in packs of at most tokens_per_micro_batch tokens, in order; a longer cell makes its own. Tokens
/// are uniform over the genes. Throws ConfigError when the vocabulary has no gene.
GlobalBatch make_batch(const TrainProblem& problem);

/// What make_batch() makes, in the numbers that decide its cost.
train::StepLoad load_of(const GlobalBatch& batch);

}  // namespace scrna::bench
