// Normalised queries and keys, and the bias of attention as a setting.
#include <cmath>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include "lib/model/block.h"
#include "lib/model/encoder.h"
#include "lib/model/token_tensors.h"
#include "tests/support/packed_cells.h"
#include "tests/support/tolerance.h"

namespace scrna::model {
namespace {

using test::pack;

ModelConfig tiny(QkNorm qk_norm) {
  return {.qk_norm = qk_norm, .num_layers = 2, .width = 32, .num_heads = 2, .feed_forward_width = 64, .dropout = 0};
}

double largest_score(const Encoder& encoder) {
  ForwardContext context{.probe_queries = 52};
  (void)encoder.hidden_states(to_device(pack({{1, 20}, {2, 32}}), at::kCPU), context);
  return at::stack(context.max_scores).max().item<double>();
}

TEST(QkNorm, IsTheFormulaInDouble) {
  for (const QkNorm kind : {QkNorm::kLayerNorm, QkNorm::kRmsNorm}) {
    const at::Tensor x = at::randn({9, 3, 16}) * 5 + 1;
    LayerNorm norm{at::randn({16}), kind == QkNorm::kLayerNorm ? at::randn({16}) : at::Tensor(), 1e-5};
    const at::Tensor exact = x.to(at::kDouble);
    const at::Tensor centred = kind == QkNorm::kLayerNorm ? exact - exact.mean(-1, true) : exact;
    at::Tensor want = centred / (centred.square().mean(-1, true) + 1e-5).sqrt() * norm.gamma.to(at::kDouble);
    if (kind == QkNorm::kLayerNorm) want += norm.beta.to(at::kDouble);
    const at::Tensor got = normalise_heads(x, norm, tiny(kind)).to(at::kDouble);
    EXPECT_LT((got - want).norm().item<double>(), test::kFloat32RelativeL2 * want.norm().item<double>());
  }
}

TEST(QkNorm, BoundsTheScoresHoweverLargeTheWeights) {
  for (const QkNorm kind : {QkNorm::kNone, QkNorm::kLayerNorm, QkNorm::kRmsNorm}) {
    Encoder encoder(tiny(kind), test::kPackedVocabulary, 32, 42, at::kCPU);
    {
      const at::NoGradGuard no_grad;
      encoder.parameters().find("layer_00.attention.qkv.weight")->value.mul_(1e3);
    }
    // With unit gains |q| = |k| = sqrt(K), so a score is at most sqrt(K) = 4.
    if (kind == QkNorm::kNone) {
      EXPECT_GT(largest_score(encoder), 100);
    } else {
      EXPECT_LE(largest_score(encoder), 4 * (1 + test::kFloat32RelativeL2));
    }
  }
}

TEST(QkNorm, GradientsOfItsGainsAreThoseOfDifferencesAndTheSameWhenRecomputed) {
  for (const QkNorm kind : {QkNorm::kLayerNorm, QkNorm::kRmsNorm}) {
    Encoder encoder(tiny(kind), test::kPackedVocabulary, 32, 42, at::kCPU);
    const TokenTensors input = to_device(pack({{1, 20}, {2, 32}}), at::kCPU);
    const at::NoGradGuard no_grad;
    // Scores far from zero, so that the gains matter.
    encoder.parameters().find("layer_00.attention.output.weight")->value.mul_(50);
    const auto gradients = [&](Recompute recompute) {
      const at::AutoGradMode grad(true);
      encoder.parameters().zero_gradients();
      ForwardContext context{.training = true, .recompute = recompute};
      encoder.forward_for_training(input, 1.0, context).backward();
      return encoder.parameters().gradients().clone();
    };
    const at::Tensor kept = gradients(Recompute::kNone);
    EXPECT_TRUE(gradients(Recompute::kBlock).equal(kept));
    const ops::Parameter* gain = encoder.parameters().find("layer_00.attention.query_norm.weight");
    ASSERT_NE(gain, nullptr);
    const at::Tensor gradient = encoder.parameters().slice(kept, encoder.parameters().index_of(gain->value));
    const auto loss = [&] {
      ForwardContext context;
      return encoder.masked_loss_sum(input, context).item<double>();
    };
    // Along the gradient itself: the difference quotient is its norm.
    const double norm = gradient.norm().item<double>(), step = 0.05;
    ASSERT_GT(norm, 0.01);
    const at::Tensor before = gain->value.detach().clone();
    gain->value.copy_(before + gradient * (step / norm));
    const double above = loss();
    gain->value.copy_(before - gradient * (step / norm));
    const double below = loss();
    gain->value.copy_(before);
    EXPECT_NEAR((above - below) / (2 * step), norm, 0.02 * norm);  // third derivatives, and rounding of losses of 40
  }
}

TEST(AttentionBias, ZeroLetsEveryTokenAttendToHalfOfTheOthers) {
  for (const AttentionBias bias : {AttentionBias::kNegativeLogLength, AttentionBias::kZero}) {
    ModelConfig config = tiny(QkNorm::kNone);
    config.attention_bias = bias;
    const Encoder encoder(config, test::kPackedVocabulary, 32, 42, at::kCPU);
    ForwardContext context{.statistics_queries = 32};
    (void)encoder.hidden_states(to_device(pack({{1, 32}}), at::kCPU), context);
    ASSERT_EQ(context.layer_statistics.size(), 2U);
    const auto at = static_cast<int64_t>(of_attention(ops::AttentionStatistic::kRowSumMean));
    // Initial scores are near 0: weights of 1/2, or of 1 / 33 each.
    EXPECT_NEAR(context.layer_statistics[0][at].item<double>(), bias == AttentionBias::kZero ? 16 : 32.0 / 33, 0.05);
  }
}

}  // namespace
}  // namespace scrna::model
