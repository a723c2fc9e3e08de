#include "kernels/attention_cpu.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/attention_cases.h"
#include "tests/support/tolerance.h"

namespace scrna::kernels {
namespace {

using test::AttentionCase;
using test::HostAttention;

std::vector<CpuVectors> supported_vectors() {
  std::vector<CpuVectors> all{CpuVectors::kBaseline, CpuVectors::kAvx2, CpuVectors::kAvx512};
  std::erase_if(all, [](CpuVectors vectors) { return !cpu_vectors_supported(vectors); });
  return all;
}

void run(HostAttention& problem, const CpuAttentionOptions& options) {
  attention_forward_cpu(problem.forward(), options);
  attention_backward_cpu(problem.backward(), options);
}

/// Exact zeros wherever a token is padding.
void expect_zero_padding(const Ragged& ragged, const AttentionShape& shape, test::GuardedTokens& x) {
  if (ragged.padded_length == 0) return;
  for (int64_t cell = 0; cell < shape.num_cells; ++cell)
    for (int64_t t = ragged.lengths[cell]; t < ragged.padded_length; ++t)
      for (int64_t h = 0; h < shape.num_heads; ++h)
        for (int64_t d = 0; d < shape.head_width; ++d)
          ASSERT_EQ(x.at(cell * ragged.padded_length + t, h, d), 0.0F) << cell << " " << t;
}

TEST(AttentionCpu, EveryCaseAgreesWithTheOracleOnEveryInstructionSet) {
  for (const AttentionCase& c : test::attention_cases()) {
    const double tolerance =
        test::kFloat32RelativeL2 + test::kFloat32RelativeL2PerScoreScale * (c.score_scale - 1.0F);
    const test::AttentionResult64 expected = HostAttention(c).oracle();
    for (const CpuVectors vectors : supported_vectors()) {
      SCOPED_TRACE(c.name + " vectors " + std::to_string(static_cast<int>(vectors)));
      HostAttention problem(c);
      run(problem, {.num_threads = 2, .vectors = vectors});
      EXPECT_LE(test::relative_l2(problem.o.values(), expected.o), tolerance);
      EXPECT_LE(test::relative_l2(problem.d_q.values(), expected.d_q), tolerance);
      EXPECT_LE(test::relative_l2(problem.d_k.values(), expected.d_k), tolerance);
      EXPECT_LE(test::relative_l2(problem.d_v.values(), expected.d_v), tolerance);
      if (c.kind == AttentionKind::kSoftmax) {
        EXPECT_LE(test::relative_l2(problem.lse, expected.lse), tolerance);
      }
      for (size_t b = 0; c.kind == AttentionKind::kSigmoid && b < problem.d_cell_bias.size(); ++b)
        EXPECT_NEAR(problem.d_cell_bias[b], expected.d_cell_bias[b],
                    test::kBiasGradientOfMagnitudes * expected.d_cell_bias_magnitude[b]);
      expect_zero_padding(problem.shape.query, problem.shape, problem.o);
      expect_zero_padding(problem.shape.query, problem.shape, problem.d_q);
      expect_zero_padding(problem.shape.key, problem.shape, problem.d_k);
      expect_zero_padding(problem.shape.key, problem.shape, problem.d_v);
      for (const auto* x : {&problem.o, &problem.d_q, &problem.d_k, &problem.d_v})
        EXPECT_TRUE(x->guards_untouched());
    }
  }
}

TEST(AttentionCpu, ResultsAreBitwiseEqualFromRunToRunAndForEveryNumberOfThreads) {
  // One long cell among short ones: with one thread its heads are whole items, with many they are cut.
  for (const auto kind : {AttentionKind::kSigmoid, AttentionKind::kSoftmax}) {
    const AttentionCase c{
        .name = "ragged", .query_lengths = {700, 30, 0, 129, 64}, .heads = 2, .width = 48, .kind = kind};
    HostAttention first(c);
    run(first, {.num_threads = 1});
    for (const int num_threads : {1, 2, 3, 16}) {
      HostAttention again(c);
      run(again, {.num_threads = num_threads});
      EXPECT_EQ(again.o.bits(), first.o.bits()) << num_threads;
      EXPECT_EQ(again.d_q.bits(), first.d_q.bits()) << num_threads;
      EXPECT_EQ(again.d_k.bits(), first.d_k.bits()) << num_threads;
      EXPECT_EQ(again.d_v.bits(), first.d_v.bits()) << num_threads;
      EXPECT_EQ(again.d_cell_bias, first.d_cell_bias) << num_threads;
    }
  }
}

TEST(AttentionCpu, WithZeroQueriesTheOutputIsExactlyHalfTheSumOfTheValues) {
  // sigmoid(0) = 1/2 and small integers: no rounding, so a lost, doubled or foreign key cannot hide.
  const AttentionCase c{
      .name = "zero_queries", .query_lengths = {1, 300, 0, 64, 129}, .bias = BiasKind::kScalar};
  HostAttention problem(c);
  problem.shape.scalar_bias = 0.0F;
  for (int64_t cell = 0; cell < problem.shape.num_cells; ++cell) {
    const test::CellTokens tokens = test::tokens_of(problem.shape.query, cell);
    for (int64_t t = tokens.begin; t < tokens.begin + tokens.length; ++t)
      for (int64_t h = 0; h < 2; ++h)
        for (int64_t d = 0; d < 64; ++d) {
          problem.q.at(t, h, d) = 0.0F;
          problem.v.at(t, h, d) = static_cast<float>((t * 7 + h * 3 + d) % 11 - 5);
        }
  }
  attention_forward_cpu(problem.forward(), {.num_threads = 2});
  const std::vector<double> expected = problem.oracle().o;
  EXPECT_EQ(problem.o.values(), expected);
}

/// x rounded to bf16: the nearer of its two neighbours, of equally near ones the even one.
uint16_t rounded_to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t low = bits >> 16 << 16;
  const uint32_t high = low + 0x10000U;
  const auto distance = [x](uint32_t y) {
    return std::fabs(static_cast<double>(std::bit_cast<float>(y)) - static_cast<double>(x));
  };
  const bool up =
      distance(high) < distance(low) || (distance(high) == distance(low) && (low >> 16 & 1U) == 1);
  return static_cast<uint16_t>((up ? high : low) >> 16);
}

/// A GuardedTokens in bf16, with the same gaps; rounds what it is made from.
struct HalfTokens {
  explicit HalfTokens(test::GuardedTokens& from) : like(from) {
    for (float& x : from.buffer()) {
      const bool poison = std::bit_cast<uint32_t>(x) == test::GuardedTokens::kPoison;
      halves.push_back(poison ? kPoison : rounded_to_bf16(x));
      if (!poison) x = std::bit_cast<float>(uint32_t{halves.back()} << 16);
    }
  }
  TokenView view() {
    const TokenView floats = like.view();
    const auto first = static_cast<float*>(floats.data) - like.buffer().data();
    return {halves.data() + first, floats.token_stride, floats.head_stride};
  }
  /// The fp32 result rounded, and poison where that has poison.
  std::vector<uint16_t> expected() const {
    std::vector<uint16_t> x;
    for (const float value : like.buffer())
      x.push_back(std::bit_cast<uint32_t>(value) == test::GuardedTokens::kPoison ? kPoison
                                                                                 : rounded_to_bf16(value));
    return x;
  }
  static constexpr uint16_t kPoison = 0x7FDE;  // a NaN that no result is
  test::GuardedTokens& like;
  std::vector<uint16_t> halves;
};

TEST(AttentionCpu, InBf16EveryResultIsTheFp32ResultRounded) {
  for (const auto kind : {AttentionKind::kSigmoid, AttentionKind::kSoftmax})
    for (AttentionCase c : {AttentionCase{.name = "ranges", .query_lengths = {600, 31}},
                            AttentionCase{.name = "width", .query_lengths = {65, 0, 9}, .width = 27},
                            AttentionCase{.name = "padded", .query_lengths = {130, 2}, .extra_padding = 3}})
      for (const CpuVectors vectors : supported_vectors()) {
        c.kind = kind;
        SCOPED_TRACE(c.name + " vectors " + std::to_string(static_cast<int>(vectors)));
        HostAttention problem(c);
        HalfTokens q(problem.q), k(problem.k), v(problem.v), d_o(problem.d_o);
        HalfTokens d_q(problem.d_q), d_k(problem.d_k), d_v(problem.d_v), o(problem.o);
        const CpuAttentionOptions options{.num_threads = 3, .vectors = vectors};
        AttentionForward forward = problem.forward();
        attention_forward_cpu(forward, options);
        forward.shape.element_type = ElementType::kBFloat16;
        forward.q = q.view(), forward.k = k.view(), forward.v = v.view(), forward.o = o.view();
        attention_forward_cpu(forward, options);
        EXPECT_EQ(o.halves, o.expected());

        const HalfTokens rounded(problem.o);  // softmax in fp32 now reads the O that bf16 reads
        AttentionBackward backward = problem.backward();
        attention_backward_cpu(backward, options);
        backward.shape.element_type = ElementType::kBFloat16;
        backward.q = q.view(), backward.k = k.view(), backward.v = v.view(), backward.d_o = d_o.view();
        backward.o = o.view();
        backward.d_q = d_q.view(), backward.d_k = d_k.view(), backward.d_v = d_v.view();
        attention_backward_cpu(backward, options);
        EXPECT_EQ(d_q.halves, d_q.expected());
        EXPECT_EQ(d_k.halves, d_k.expected());
        EXPECT_EQ(d_v.halves, d_v.expected());
      }
}

/// O of one query and one key with K = 1, v = 1, k = 1: sigmoid of the query itself.
std::vector<float> sigmoid_of(const std::vector<float>& x, CpuVectors vectors) {
  std::vector<float> out(x.size());
  std::vector<float> ones(x.size(), 1.0F);
  std::vector<int32_t> begin(x.size() + 1);
  for (size_t i = 0; i < begin.size(); ++i) begin[i] = static_cast<int32_t>(i);
  const auto view = [](const std::vector<float>& data) {
    return TokenView{const_cast<float*>(data.data()), 1, 1};
  };
  const Ragged ragged{
      .cu_seqlens = begin.data(), .total_tokens = static_cast<int64_t>(x.size()), .max_length = 1};
  AttentionForward call;
  call.shape = {.num_cells = static_cast<int64_t>(x.size()),
                .num_heads = 1,
                .head_width = 1,
                .query = ragged,
                .key = ragged,
                .bias_kind = BiasKind::kScalar};
  call.q = view(x), call.k = view(ones), call.v = view(ones), call.o = view(out);
  attention_forward_cpu(call, {.num_threads = 1, .vectors = vectors});
  return out;
}

TEST(AttentionCpu, SigmoidIsAccurateToAFewUlpOverTheWholeRange) {
  std::vector<float> x;
  for (float value = -87.0F; value < 30.0F; value += 0.00317F) x.push_back(value);
  for (const float value : {0.0F, -0.0F, 1e-30F, -1e-30F, 16.6F, 17.5F}) x.push_back(value);
  for (const CpuVectors vectors : supported_vectors()) {
    const std::vector<float> actual = sigmoid_of(x, vectors);
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = 1.0 / (1.0 + std::exp(-static_cast<double>(x[i])));
      const auto rounded = static_cast<float>(expected);
      const double ulp = static_cast<double>(std::nextafter(rounded, 2.0F)) - static_cast<double>(rounded);
      worst = std::max(worst, std::fabs(static_cast<double>(actual[i]) - expected) / ulp);
    }
    EXPECT_LE(worst, test::kSigmoidUlp) << static_cast<int>(vectors);
    RecordProperty("worst_ulp_" + std::to_string(static_cast<int>(vectors)), std::to_string(worst));
  }
}

TEST(AttentionCpu, SigmoidSaturatesToExactZeroAndOneAndKeepsNaN) {
  for (const CpuVectors vectors : supported_vectors()) {
    const std::vector<float> y =
        sigmoid_of({-88.0F, -1e30F, -INFINITY, 88.0F, 1e30F, INFINITY, NAN}, vectors);
    EXPECT_EQ(std::vector<float>(y.begin(), y.end() - 1), (std::vector<float>{0, 0, 0, 1, 1, 1}));
    EXPECT_TRUE(std::isnan(y.back()));
  }
}

TEST(AttentionCpu, AKeyBiasOfMinusInfinityRemovesTheKey) {
  for (const auto kind : {AttentionKind::kSigmoid, AttentionKind::kSoftmax}) {
    AttentionCase c{.name = "masked", .query_lengths = {90, 20}, .kind = kind, .bias = BiasKind::kScalar};
    c.key_bias = true;
    HostAttention problem(c);
    std::vector<float> key_bias(110, -INFINITY);  // the second cell loses all of its keys
    for (size_t j = 0; j < 90; j += 2) key_bias[j] = 0.5F;
    problem.shape.key_bias = key_bias.data();
    run(problem, {.num_threads = 1});
    const std::vector<double> o = problem.o.values();
    const std::vector<double> d_v = problem.d_v.values();
    for (size_t i = 0; i < 90 * 128; ++i) ASSERT_TRUE(std::isfinite(o[i]));
    for (size_t i = 90 * 128; i < o.size(); ++i) ASSERT_EQ(o[i], 0.0);
    for (size_t j = 1; j < 90; j += 2) ASSERT_EQ(d_v[j * 128], 0.0);
    for (size_t j = 0; j < 90; j += 2) ASSERT_NE(d_v[j * 128], 0.0);
    for (const double gradient : problem.d_q.values()) ASSERT_TRUE(std::isfinite(gradient));
  }
}

TEST(AttentionCpu, NaNInAValidTokenReachesTheOutputsOfItsCellOnly) {
  for (const auto kind : {AttentionKind::kSigmoid, AttentionKind::kSoftmax}) {
    HostAttention problem({.name = "nan", .query_lengths = {30, 40}, .kind = kind});
    problem.k.at(3, 0, 0) = NAN;
    attention_forward_cpu(problem.forward(), {.num_threads = 1});
    const std::vector<double> o = problem.o.values();
    EXPECT_TRUE(std::isnan(o[0]));
    for (size_t i = 30 * 128; i < o.size(); ++i) ASSERT_FALSE(std::isnan(o[i]));
  }
}

}  // namespace
}  // namespace scrna::kernels
