// Embeddings in bf16, on the CPU and on a GPU: near those in fp32 on the CPU, and neighbours in the pack show
// in rounding alone. The wrong layer, pooling or row is off by more than a tenth (embedding_test.cpp).
#include <memory>
#include <numeric>
#include <vector>

#include <ATen/ops/equal.h>
#include <ATen/ops/isnan.h>
#include <gtest/gtest.h>

#include "lib/eval/embedding.h"
#include "lib/model/token_tensors.h"
#include "tests/support/memory_corpus.h"
#include "tests/support/test_device.h"
#include "tests/support/tolerance.h"

namespace scrna::eval {
namespace {

constexpr int64_t kCells = 60, kLayers = 3;

class EmbeddingInBf16 : public test::OnDevice {
 protected:
  static model::ModelConfig config(model::Attention attention) {
    return {.attention = attention,
            .num_layers = kLayers,
            .width = 128,
            .num_heads = 2,  // head width 64, which every kernel has
            .feed_forward_width = 256,
            .initializer_range = 0.1};
  }
  [[nodiscard]] std::unique_ptr<model::Encoder> encoder(const model::ModelConfig& config, at::Device on,
                                                        at::ScalarType type) const {
    return std::make_unique<model::Encoder>(config, corpus_.vocabulary().size(),
                                            corpus_.tokenizer_config().max_tokens, 42, on, type);
  }
  static data::Corpus make_corpus() {
    data::DataConfig config = test::corpus_config();
    config.heldout_fraction = 0;
    return test::make_corpus(test::corpus_sources({kCells}), config);
  }
  /// The largest relative L2 distance of two rows; NaN must be in the same rows.
  static double largest_distance(const at::Tensor& rows, const at::Tensor& reference) {
    EXPECT_TRUE(rows.isnan().eq(reference.isnan()).all().item<bool>());
    const at::Tensor distance = rows.sub(reference).nan_to_num().norm(2, {1});
    return distance.div(reference.nan_to_num(1).norm(2, {1})).max().item<double>();
  }
  const data::Corpus corpus_ = make_corpus();
  const data::TokenizedCells cells_ = data::tokenize_cells(corpus_, 0, 0, kCells);
};

TEST_F(EmbeddingInBf16, IsNearFp32AndNeighboursShowInRoundingAlone) {
  for (const model::Attention attention : {model::Attention::kSigmoid, model::Attention::kSoftmax}) {
    const auto exact = encoder(config(attention), at::kCPU, at::kFloat),
               rounded = encoder(config(attention), device(), at::kBFloat16);
    for (const Pooling pooling : {Pooling::kMean, Pooling::kMax, Pooling::kFirst}) {
      for (const int64_t blocks : {int64_t{0}, kLayers - 1, kLayers}) {
        const auto rows = [&](const model::Encoder& model, int64_t tokens_per_pack) {
          return embed_cells(model, cells_,
                             {.pooling = pooling, .num_blocks = blocks, .tokens_per_pack = tokens_per_pack});
        };
        const at::Tensor packed = rows(*rounded, 100000);
        const double from_fp32 = largest_distance(packed, rows(*exact, 100000));
        const double from_alone = largest_distance(rows(*rounded, 1), packed);
        EXPECT_LE(from_fp32, test::kBFloat16EmbeddingRelativeL2)
            << name_of(pooling) << " of layer " << blocks;
        EXPECT_LE(from_alone, test::kBFloat16PackRelativeL2) << name_of(pooling) << " of layer " << blocks;
        RecordProperty("from_fp32_" + std::string(name_of(pooling)) + std::to_string(blocks),
                       std::to_string(from_fp32));
      }
    }
  }
}

TEST_F(EmbeddingInBf16, FastGeluIsOneOfAGpuWithoutGradientsAlone) {
  const model::ModelConfig plain = config(model::Attention::kSigmoid);
  model::ModelConfig fast_gelu = plain;
  fast_gelu.gelu_precision = model::GeluPrecision::kFast;
  model::ModelConfig all_fast = fast_gelu;  // what --fast sets
  all_fast.attention_precision = model::AttentionPrecision::kFast;
  all_fast.residual_precision = model::ResidualPrecision::kBf16;
  const auto rows = [&](const model::Encoder& model) {
    return embed_cells(model, cells_, {.num_blocks = kLayers, .tokens_per_pack = 100000});
  };
  const auto exact = encoder(plain, device(), at::kBFloat16), fast = encoder(fast_gelu, device(), at::kBFloat16),
             fastest = encoder(all_fast, device(), at::kBFloat16);
  const at::Tensor exact_rows = rows(*exact), fast_rows = rows(*fast), fastest_rows = rows(*fastest);
  EXPECT_EQ(at::equal(exact_rows.nan_to_num(), fast_rows.nan_to_num()), device().is_cpu());
  EXPECT_LE(largest_distance(fast_rows, exact_rows), test::kBFloat16PackRelativeL2);
  EXPECT_LE(largest_distance(fastest_rows, rows(*encoder(plain, at::kCPU, at::kFloat))),
            test::kBFloat16EmbeddingRelativeL2);
  RecordProperty("gelu_from_exact", std::to_string(largest_distance(fast_rows, exact_rows)));
  RecordProperty("all_fast_from_exact", std::to_string(largest_distance(fastest_rows, exact_rows)));

  std::vector<int64_t> all(static_cast<std::size_t>(kCells));
  std::iota(all.begin(), all.end(), 0);
  const model::TokenTensors input = model::to_device(pack_of(cells_, all), device());
  for (const model::Recompute recompute :
       {model::Recompute::kNone, model::Recompute::kFeedForward, model::Recompute::kBlock}) {
    const auto trained = [&](const model::Encoder& model) {
      model::ForwardContext context{.recompute = recompute};
      return model.hidden_for_training(input, context).hidden();
    };
    EXPECT_TRUE(at::equal(trained(*exact), trained(*fast)));
  }
}

}  // namespace
}  // namespace scrna::eval
