// Vectors of cells: what is pooled, that neighbours in the pack and the order of cells do not show, and what
// happens to cells without genes.
#include "lib/eval/embedding.h"

#include <memory>
#include <vector>

#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/model/token_tensors.h"
#include "tests/support/expect_error.h"
#include "tests/support/memory_corpus.h"

namespace scrna::eval {
namespace {

constexpr int64_t kWidth = 32, kLayers = 3;
// fp32 products over one cell's rows or a pack's round differently; embeddings here have norms near sqrt(32).
constexpr double kPackTolerance = 2e-5;

std::unique_ptr<model::Encoder> make_encoder(const data::Corpus& corpus,
                                             model::Attention attention = model::Attention::kSigmoid) {
  const model::ModelConfig config{.attention = attention,
                                  .num_layers = kLayers,
                                  .width = kWidth,
                                  .num_heads = 2,
                                  .feed_forward_width = 64,
                                  .dropout = 0.1,
                                  .initializer_range = 0.3};  // far from the identity, so that mistakes show
  return std::make_unique<model::Encoder>(config, corpus.vocabulary().size(),
                                          corpus.tokenizer_config().max_tokens, 42, at::kCPU);
}

data::Corpus corpus_of_all_cells(int64_t cells, bool add_cls = false) {
  data::DataConfig config = test::corpus_config();
  config.heldout_fraction = 0;
  return test::make_corpus(test::corpus_sources({cells}), config, {.max_tokens = 32, .add_cls = add_cls});
}

// What embed_cells() should give for one cell: the cell alone, pooled by other means.
at::Tensor expected_row(const model::Encoder& encoder, std::span<const int32_t> tokens,
                        const EmbeddingOptions& options) {
  PackedMicroBatch pack;
  pack.tokens.assign(tokens.begin(), tokens.end());
  for (int32_t i = 0; i < std::ssize(tokens); ++i) pack.ranks.push_back(i);
  pack.cu_seqlens = {0, static_cast<int32_t>(tokens.size())};
  pack.cell_ids = {7};
  pack.max_cell_tokens = static_cast<int32_t>(tokens.size());
  model::ForwardContext context;
  const at::Tensor hidden =
      encoder.hidden_states_after(options.num_blocks, model::to_device(pack, at::kCPU), context);
  const int64_t first = options.has_cls ? 1 : 0;
  const at::Tensor genes = hidden.narrow(0, first, hidden.size(0) - first).to(at::kDouble);
  if (options.pooling == Pooling::kFirst) return hidden.select(0, 0).to(at::kFloat);
  return (options.pooling == Pooling::kMean ? genes.sum(0).div(genes.size(0)) : genes.amax({0}))
      .to(at::kFloat);
}

TEST(Embedding, EveryPoolingAndLayerIsThatOfTheCellAlone) {
  for (const bool add_cls : {false, true}) {
    const data::Corpus corpus = corpus_of_all_cells(40, add_cls);
    const data::TokenizedCells cells = data::tokenize_cells(corpus, 0, 0, 40);
    for (const model::Attention attention : {model::Attention::kSigmoid, model::Attention::kSoftmax}) {
      const auto encoder = make_encoder(corpus, attention);
      for (const Pooling pooling : {Pooling::kMean, Pooling::kMax, Pooling::kFirst}) {
        for (int64_t num_blocks = 0; num_blocks <= kLayers; ++num_blocks) {
          const EmbeddingOptions options{
              .pooling = pooling, .num_blocks = num_blocks, .has_cls = add_cls, .tokens_per_pack = 100};
          const at::Tensor rows = embed_cells(*encoder, cells, options);
          ASSERT_EQ(rows.sizes(), (at::IntArrayRef{40, kWidth}));
          for (const int64_t cell : {0, 5, 11, 39}) {
            EXPECT_TRUE(at::allclose(rows[cell], expected_row(*encoder, cells.tokens_of(cell), options),
                                     kPackTolerance, kPackTolerance))
                << name_of(pooling) << " of layer " << num_blocks << ", cell " << cell;
          }
        }
      }
    }
  }
}

TEST(Embedding, PoolingsAndLayersDiffer) {
  const data::Corpus corpus = corpus_of_all_cells(20);
  const data::TokenizedCells cells = data::tokenize_cells(corpus, 0, 0, 12);
  const auto encoder = make_encoder(corpus);
  std::vector<at::Tensor> all;
  for (const Pooling pooling : {Pooling::kMean, Pooling::kMax, Pooling::kFirst})
    for (int64_t blocks = 0; blocks <= kLayers; ++blocks)
      all.push_back(embed_cells(*encoder, cells, {.pooling = pooling, .num_blocks = blocks}));
  for (std::size_t i = 0; i < all.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      EXPECT_FALSE(at::allclose(all[i], all[j], 1e-3, 1e-3)) << i << ", " << j;
}

TEST(Embedding, TheNeighboursInThePackDoNotShow) {
  const data::Corpus corpus = corpus_of_all_cells(60);
  const data::TokenizedCells cells = data::tokenize_cells(corpus, 0, 0, 60);
  for (const model::Attention attention : {model::Attention::kSigmoid, model::Attention::kSoftmax}) {
    const auto encoder = make_encoder(corpus, attention);
    const at::Tensor alone = embed_cells(*encoder, cells, {.num_blocks = kLayers, .tokens_per_pack = 1});
    for (const int64_t tokens_per_pack : {33, 100, 100000}) {
      const at::Tensor packed =
          embed_cells(*encoder, cells, {.num_blocks = kLayers, .tokens_per_pack = tokens_per_pack});
      EXPECT_TRUE(at::allclose(packed, alone, kPackTolerance, kPackTolerance, /*equal_nan=*/true))
          << packed.sub(alone).abs().nan_to_num().max().item<double>() << " in packs of " << tokens_per_pack;
    }
  }
}

TEST(Embedding, ACellWithoutGenesIsARowOfNanInItsPlace) {
  const data::Corpus corpus = corpus_of_all_cells(30);  // every 13th is empty
  const auto encoder = make_encoder(corpus);
  const at::Tensor rows =
      embed_cells(*encoder, data::tokenize_cells(corpus, 0, 0, 30), {.num_blocks = kLayers});
  for (int64_t cell = 0; cell < 30; ++cell) {
    const int64_t num_nan = rows[cell].isnan().sum().item<int64_t>();
    EXPECT_EQ(num_nan, cell % 13 == 12 ? kWidth : 0) << "cell " << cell;
  }
}

TEST(Embedding, WindowsComeInOrderAndGoOnFromAnyCell) {
  const data::Corpus corpus = corpus_of_all_cells(50);
  const auto encoder = make_encoder(corpus);
  const EmbeddingOptions options{.num_blocks = kLayers, .tokens_per_pack = 64};
  const auto rows_from = [&](int64_t first_cell) {
    std::vector<at::Tensor> parts;
    int64_t next = first_cell;
    EXPECT_TRUE(embed_source(*encoder, corpus, 0, first_cell, 16, options,
                             [&](int64_t first, const at::Tensor& rows) {
                               EXPECT_EQ(first, next);
                               next += rows.size(0);
                               parts.push_back(rows);
                             }));
    EXPECT_EQ(next, 50);
    return at::cat(parts);
  };
  const at::Tensor all = rows_from(0);
  // The same windows have the same packs, and so the same bits.
  const at::Tensor rest = rows_from(32), again = all.narrow(0, 32, 18);
  EXPECT_TRUE(at::equal(rest.nan_to_num(), again.nan_to_num()));
}

TEST(Embedding, StoppingGivesNoHalfWindow) {
  const data::Corpus corpus = corpus_of_all_cells(50);
  const auto encoder = make_encoder(corpus);
  int64_t given = 0;
  const bool is_finished = embed_source(
      *encoder, corpus, 0, 0, 16, {.num_blocks = kLayers, .tokens_per_pack = 64},
      [&](int64_t, const at::Tensor& rows) { given += rows.size(0); },
      [&](int64_t done) { return done < 20; });
  EXPECT_FALSE(is_finished);
  EXPECT_EQ(given, 16);
}

TEST(Embedding, LayersAreCountedFromBothEnds) {
  EXPECT_EQ(resolve_layer(-1, 12), 12);
  EXPECT_EQ(resolve_layer(-2, 12), 11);
  EXPECT_EQ(resolve_layer(0, 12), 0);
  EXPECT_EQ(resolve_layer(-13, 12), 0);
  for (const int64_t layer : {13, -14})
    EXPECT_CONTAINS(test::message_of<ConfigError>([&] { resolve_layer(layer, 12); }), "--layer: expected 0");
}

}  // namespace
}  // namespace scrna::eval
