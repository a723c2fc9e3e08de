#include "lib/model/encoder.h"

#include <algorithm>
#include <cmath>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/model/block.h"
#include "lib/model/initialisation.h"
#include "lib/model/token_tensors.h"
#include "tests/support/packed_cells.h"
#include "tests/support/tolerance.h"

namespace scrna::model {
namespace {

using test::pack;
constexpr int64_t kVocabulary = test::kPackedVocabulary;
constexpr int64_t kMaxTokens = 32;

ModelConfig tiny(Attention attention = Attention::kSigmoid) {
  return {.attention = attention,
          .num_layers = 2,
          .width = 32,
          .num_heads = 2,
          .feed_forward_width = 64,
          .dropout = 0.1};
}

/// The gradients of the summed loss, in the encoder's buffer.
void add_gradients(Encoder& encoder, const TokenTensors& input, ForwardContext context) {
  encoder.parameters().zero_gradients();
  encoder.forward_for_training(input, 1.0, context).backward();
}

double loss_of(const Encoder& encoder, const PackedMicroBatch& cells, bool training = false) {
  const at::NoGradGuard no_grad;
  ForwardContext context{.seed = 7, .step = 3, .training = training};
  return encoder.masked_loss_sum(to_device(cells, at::kCPU), context).item<double>();
}

TEST(Encoder, TheInitialLossIsNearTheUniformOne) {
  const Encoder encoder(tiny(), kVocabulary, kMaxTokens, 42, at::kCPU);
  const PackedMicroBatch cells = pack({{1, 20}, {2, 32}});
  EXPECT_NEAR(loss_of(encoder, cells) / static_cast<double>(cells.num_masked()), std::log(kVocabulary), 0.1);
}

TEST(Encoder, ACellDoesNotSeeItsNeighboursInThePack) {
  for (const Attention attention : {Attention::kSigmoid, Attention::kSoftmax}) {
    const Encoder encoder(tiny(attention), kVocabulary, kMaxTokens, 42, at::kCPU);
    for (const bool training : {false, true}) {
      const double together = loss_of(encoder, pack({{1, 20}, {2, 7}, {3, 32}}), training);
      const double apart =
          loss_of(encoder, pack({{3, 32}}), training) + loss_of(encoder, pack({{2, 7}, {1, 20}}), training);
      EXPECT_NEAR(together, apart, 1e-5 * std::abs(together)) << "training " << training;
    }
  }
}

TEST(Encoder, TheConfiguredPrecisionReachesAttentionAndTheProcessorIsAlwaysExact) {
  ModelConfig fast = tiny();
  fast.attention_precision = AttentionPrecision::kFast;
  EXPECT_EQ(attention_options(tiny()).precision, kernels::SigmoidPrecision::kExact);
  EXPECT_EQ(attention_options(fast).precision, kernels::SigmoidPrecision::kFast);
  const Encoder encoder(fast, kVocabulary, kMaxTokens, 42, at::kCPU);
  EXPECT_TRUE(encoder.describe_attention().starts_with("exact sigmoid attention, head width 16"))
      << encoder.describe_attention();
  const PackedMicroBatch cells = pack({{1, 20}, {2, 32}});
  EXPECT_EQ(loss_of(encoder, cells), loss_of(Encoder(tiny(), kVocabulary, kMaxTokens, 42, at::kCPU), cells));
}

TEST(Encoder, TheResidualStreamIsRoundedOnlyWhereAskedForAndOnlyInBf16) {
  ModelConfig rounded = tiny();
  rounded.residual_precision = ResidualPrecision::kBf16;
  EXPECT_EQ(residual_type(tiny(), at::kBFloat16), at::kFloat);
  EXPECT_EQ(residual_type(rounded, at::kBFloat16), at::kBFloat16);
  EXPECT_EQ(residual_type(rounded, at::kFloat), at::kFloat);
  const PackedMicroBatch cells = pack({{1, 20}, {2, 32}});
  const auto loss = [&](const ModelConfig& config, at::ScalarType type) {
    return loss_of(Encoder(config, kVocabulary, kMaxTokens, 42, at::kCPU, type), cells);
  };
  const double exact = loss(tiny(), at::kFloat);
  EXPECT_EQ(loss(rounded, at::kFloat), exact);
  const double wide = loss(tiny(), at::kBFloat16), narrow = loss(rounded, at::kBFloat16);
  EXPECT_NE(wide, narrow);
  for (const double other : {wide, narrow}) EXPECT_NEAR(other, exact, 5e-3 * exact);
}

TEST(Encoder, TheSameSeedGivesTheSameModelAndAnotherAnother) {
  const Encoder a(tiny(), kVocabulary, kMaxTokens, 42, at::kCPU),
      b(tiny(), kVocabulary, kMaxTokens, 42, at::kCPU);
  const Encoder c(tiny(), kVocabulary, kMaxTokens, 43, at::kCPU);
  EXPECT_TRUE(at::equal(a.parameters().values(), b.parameters().values()));
  EXPECT_FALSE(at::equal(a.parameters().values(), c.parameters().values()));
}

TEST(Encoder, GradientsAgreeWithFiniteDifferences) {
  for (const Attention attention : {Attention::kSigmoid, Attention::kSoftmax}) {
    Encoder encoder(tiny(attention), kVocabulary, kMaxTokens, 42, at::kCPU);
    const TokenTensors input = to_device(pack({{1, 11}, {2, 5}}), at::kCPU);
    add_gradients(encoder, input, {.seed = 7, .training = true});
    const at::NoGradGuard no_grad;
    const auto loss = [&] {
      ForwardContext again{.seed = 7, .training = true};
      return encoder.masked_loss_sum(input, again).item<double>();
    };
    for (const ops::Parameter& parameter : encoder.parameters().all()) {
      // Along the gradient's own direction the slope is its norm: one number that any wrong entry changes.
      const at::Tensor gradient = parameter.value.grad();
      const double norm = gradient.norm().item<double>();
      if (norm < 1e-3) continue;
      const double step = 0.01;
      const at::Tensor direction = gradient.div(norm).mul(step);
      parameter.value.add_(direction);
      const double above = loss();
      parameter.value.sub_(direction.mul(2));
      const double below = loss();
      parameter.value.add_(direction);
      // Rounding of two fp32 losses near 12 over the step, and the curvature's third order.
      EXPECT_NEAR((above - below) / (2 * step), norm, 0.02 * norm + 1e-3) << parameter.name;
    }
  }
}

TEST(Encoder, TheScoreProbeReportsOneNumberPerLayer) {
  const Encoder encoder(tiny(), kVocabulary, kMaxTokens, 42, at::kCPU);
  ForwardContext context{.probe_queries = 8};
  const at::NoGradGuard no_grad;
  static_cast<void>(encoder.hidden_states(to_device(pack({{1, 20}}), at::kCPU), context));
  ASSERT_EQ(context.max_scores.size(), 2U);
  for (const at::Tensor& score : context.max_scores) EXPECT_GT(score.item<double>(), 0.0);
}

TEST(Encoder, Bf16StaysNearFp32) {
  const Encoder fp32(tiny(), kVocabulary, kMaxTokens, 42, at::kCPU),
      bf16(tiny(), kVocabulary, kMaxTokens, 42, at::kCPU, at::kBFloat16);
  const PackedMicroBatch cells = pack({{1, 20}, {2, 32}});
  const double a = loss_of(fp32, cells), b = loss_of(bf16, cells);
  EXPECT_NE(a, b);
  EXPECT_NEAR(a, b, 0.01 * a);
}

TEST(Encoder, TheTrainingLossIsTheEvaluatedOneAndItsGradientsAddUp) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    Encoder encoder(tiny(), kVocabulary, kMaxTokens, 42, at::kCPU, type);
    const PackedMicroBatch cells = pack({{1, 20}, {2, 32}});
    const TokenTensors input = to_device(cells, at::kCPU);
    ForwardContext context{.seed = 7, .step = 3, .training = true};
    encoder.parameters().zero_gradients();
    TrainingPass pass = encoder.forward_for_training(input, 0.5, context);
    EXPECT_EQ(pass.loss_sum().item<double>(), loss_of(encoder, cells, /*training=*/true));
    pass.backward();
    const at::Tensor once = encoder.parameters().gradients().clone();
    encoder.forward_for_training(input, 0.5, context).backward();
    const at::Tensor twice = encoder.parameters().gradients();
    EXPECT_GT(once.norm().item<double>(), 0.0);
    EXPECT_LE(twice.sub(once.mul(2)).norm().item<double>(),
              test::kFloat32RelativeL2 * twice.norm().item<double>());
  }
}

TEST(Encoder, RecomputationGivesTheSameBitsAndReportsTheScoresOnce) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    Encoder encoder(tiny(), kVocabulary, kMaxTokens, 42, at::kCPU, type);
    const TokenTensors input = to_device(pack({{1, 20}, {2, 32}, {3, 5}}), at::kCPU);
    at::Tensor gradients, scores;
    for (const Recompute recompute : {Recompute::kNone, Recompute::kFeedForward, Recompute::kBlock}) {
      ForwardContext context{
          .seed = 7, .step = 3, .training = true, .recompute = recompute, .probe_queries = 4};
      encoder.parameters().zero_gradients();
      encoder.forward_for_training(input, 1.0, context).backward();
      ASSERT_EQ(context.max_scores.size(), 2U);
      if (recompute == Recompute::kNone) {
        gradients = encoder.parameters().gradients().clone();
        scores = at::stack(context.max_scores);
        EXPECT_GT(gradients.norm().item<double>(), 0.0);
      }
      EXPECT_TRUE(encoder.parameters().gradients().equal(gradients)) << static_cast<int>(recompute);
      EXPECT_TRUE(at::stack(context.max_scores).equal(scores)) << static_cast<int>(recompute);
      EXPECT_FALSE(context.max_scores[0].requires_grad());
    }
  }
}

TEST(Encoder, RowsThatPadTheHeadStayZeroAndAreNoParameters) {
  Encoder encoder(tiny(), kVocabulary, kMaxTokens, 42, at::kCPU);
  const ops::ParameterSet& parameters = encoder.parameters();
  add_gradients(encoder, to_device(pack({{1, 20}}), at::kCPU), {.seed = 7, .training = true});
  for (const char* name : {"head.output.weight", "head.output.bias"}) {
    const ops::Parameter* head = parameters.find(name);
    ASSERT_NE(head, nullptr);
    EXPECT_EQ(head->value.size(0), kVocabulary);
    const size_t index = parameters.index_of(head->value);
    for (const at::Tensor& flat : {parameters.values(), parameters.gradients()}) {
      const at::Tensor padded = parameters.with_reserve(flat, index);
      EXPECT_EQ(padded.size(0), 64);
      EXPECT_TRUE(padded.narrow(0, 0, kVocabulary).equal(parameters.slice(flat, index)));
      EXPECT_EQ(padded.narrow(0, kVocabulary, 64 - kVocabulary).abs().max().item<float>(), 0.0F);
    }
  }
}

TEST(Encoder, ACellLongerThanThePositionsIsRefused) {
  const Encoder encoder(tiny(), kVocabulary, 16, 42, at::kCPU);
  EXPECT_THROW(loss_of(encoder, pack({{1, 17}})), ConfigError);
}

TEST(Initialisation, DrawsHaveTheAskedMeanAndSpread) {
  const at::Tensor values = normal_values({1000, 101}, 0.02, 42, "a");
  // 101,000 draws: standard error of the mean 6.3e-5, of the deviation 4.5e-5; bounds at six of them.
  EXPECT_NEAR(values.mean().item<double>(), 0.0, 4e-4);
  EXPECT_NEAR(values.std().item<double>(), 0.02, 3e-4);
  EXPECT_FALSE(at::equal(values, normal_values({1000, 101}, 0.02, 42, "b")));
}

// The masked-gene loss done by hand on the recorded tokens: the gradients of everything but the output head must be those
// of the encoder's own training pass.
TEST(Encoder, TheRecordedTokensGiveTheGradientsOfTheTrainingPass) {
  Encoder encoder(tiny(), kVocabulary, kMaxTokens, 42, at::kCPU);
  const TokenTensors input = to_device(pack({{1, 20}, {2, 7}, {3, 32}}), at::kCPU);
  for (const Recompute recompute : {Recompute::kNone, Recompute::kBlock}) {
    const ForwardContext context{.seed = 7, .step = 3, .training = true, .recompute = recompute};
    add_gradients(encoder, input, context);
    const at::Tensor expected = encoder.parameters().gradients().clone();

    encoder.parameters().zero_gradients();
    ForwardContext again = context;
    HiddenPass pass = encoder.hidden_for_training(input, again);
    const at::Tensor hidden = pass.hidden().requires_grad_();
    const at::Tensor logits = at::addmm(encoder.parameters().find("head.output.bias")->value.detach(),
                                        at::index_select(hidden, 0, input.masked_positions),
                                        encoder.parameters().find("head.output.weight")->value.detach().t());
    at::log_softmax(logits, -1).gather(1, input.masked_targets.unsqueeze(1)).sum().neg().backward();
    pass.backward(hidden.grad());
    for (std::size_t i = 0; i < encoder.parameters().all().size(); ++i) {
      const at::Tensor found = encoder.parameters().slice(encoder.parameters().gradients(), i);
      const at::Tensor wanted = encoder.parameters().slice(expected, i);
      const std::string& name = encoder.parameters().all()[i].name;
      if (encoder.gradient_moment(i) == GradientMoment::kForward) {
        EXPECT_EQ(found.abs().max().item<float>(), 0.0F) << name;
      } else {
        EXPECT_GT(wanted.abs().max().item<float>(), 0.0F) << name;
        EXPECT_LE(found.sub(wanted).abs().max().item<double>(),
                  test::kGpuAgainstCpuRelative * wanted.abs().max().item<double>()) << name;
      }
    }
  }
}

TEST(Encoder, TheRecordedTokensAreTheHiddenStates) {
  const Encoder encoder(tiny(), kVocabulary, kMaxTokens, 42, at::kCPU);
  const TokenTensors input = to_device(pack({{1, 20}, {3, 32}}), at::kCPU);
  ForwardContext context{.training = false};
  EXPECT_TRUE(at::equal(encoder.hidden_for_training(input, context).hidden(), encoder.hidden_states(input, context)));
}

}  // namespace
}  // namespace scrna::model
