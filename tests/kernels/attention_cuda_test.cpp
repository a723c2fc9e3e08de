#include "kernels/attention_cuda.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/device_attention.h"
#include "tests/support/tolerance.h"

namespace scrna::kernels {
namespace {

using test::AttentionCase;
using test::DeviceAttention;
using test::HostAttention;

constexpr int kHopper = 90;

class AttentionCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (test::compute_capability() != kHopper) GTEST_SKIP() << "needs a GPU of compute capability 9.0";
  }
};

struct Variant {
  ElementType type;
  SigmoidPrecision precision;
  bool deterministic;
  [[nodiscard]] double output() const {
    return type == ElementType::kBFloat16 ? test::kBFloat16AttentionOutput : test::kFloat16AttentionOutput;
  }
  [[nodiscard]] double gradient() const {
    return type == ElementType::kBFloat16 ? test::kBFloat16AttentionGradient
                                          : test::kFloat16AttentionGradient;
  }
  [[nodiscard]] std::string name() const {
    return std::string(type == ElementType::kBFloat16 ? "bf16" : "fp16") +
           (precision == SigmoidPrecision::kFast ? " fast" : " exact") +
           (deterministic ? " deterministic" : "");
  }
};

std::vector<Variant> variants() {
  std::vector<Variant> all;
  for (const auto type : {ElementType::kBFloat16, ElementType::kFloat16})
    for (const auto precision : {SigmoidPrecision::kExact, SigmoidPrecision::kFast})
      for (const bool deterministic : {false, true}) all.push_back({type, precision, deterministic});
  return all;
}

/// The cases of the table that these kernels compute, those of width 64 in width 128 too.
std::vector<AttentionCase> cases() {
  std::vector<AttentionCase> all;
  for (AttentionCase c : test::attention_cases()) {
    if (c.kind != AttentionKind::kSigmoid) continue;
    if (c.name.find("300_cells") != std::string::npos || c.name.find("many_short") != std::string::npos)
      c.width = 64;
    if (c.width != 64 && c.width != 128) continue;
    all.push_back(c);
    if (c.width == 64) {
      c.width = 128;
      c.name += "_128";
      all.push_back(c);
    }
  }
  return all;
}

void expect_zero_padding(const Ragged& ragged, const AttentionShape& shape, test::GuardedTokens& x) {
  if (ragged.padded_length == 0) return;
  for (int64_t cell = 0; cell < shape.num_cells; ++cell)
    for (int64_t t = ragged.lengths[cell]; t < ragged.padded_length; ++t)
      for (int64_t h = 0; h < shape.num_heads; ++h)
        for (int64_t d = 0; d < shape.head_width; ++d)
          ASSERT_EQ(x.at(cell * ragged.padded_length + t, h, d), 0.0F) << cell << " " << t;
}

void run(DeviceAttention& device, bool deterministic, bool bias_gradient = true) {
  device.reset();
  ASSERT_EQ(device.forward(), cudaSuccess);
  ASSERT_EQ(device.backward(deterministic, bias_gradient), cudaSuccess);
  device.download();
}

TEST(AttentionCudaChoice, UnsupportedCallsAreRefusedWithTheReason) {
  EXPECT_EQ(attention_cuda_unsupported(90, AttentionKind::kSigmoid, ElementType::kBFloat16, 64), nullptr);
  EXPECT_EQ(attention_cuda_unsupported(90, AttentionKind::kSigmoid, ElementType::kFloat16, 128), nullptr);
  EXPECT_NE(attention_cuda_unsupported(80, AttentionKind::kSigmoid, ElementType::kBFloat16, 64), nullptr);
  EXPECT_NE(attention_cuda_unsupported(90, AttentionKind::kSoftmax, ElementType::kBFloat16, 64), nullptr);
  EXPECT_NE(attention_cuda_unsupported(90, AttentionKind::kSigmoid, ElementType::kFloat32, 64), nullptr);
  EXPECT_NE(attention_cuda_unsupported(90, AttentionKind::kSigmoid, ElementType::kBFloat16, 96), nullptr);
  alignas(16) static uint16_t memory[8];
  EXPECT_TRUE(attention_cuda_view_possible({memory, 64, 8}, 2, 2));
  EXPECT_FALSE(attention_cuda_view_possible({memory + 1, 64, 8}, 2, 2));
  EXPECT_FALSE(attention_cuda_view_possible({memory, 63, 8}, 2, 2));
  EXPECT_TRUE(attention_cuda_view_possible({memory, 64, 1}, 2, 1));  // one head: its stride does not matter
  AttentionForward call;
  call.shape.head_width = 96;
  EXPECT_EQ(attention_forward_cuda(call, nullptr, nullptr), cudaErrorInvalidValue);
}

TEST_F(AttentionCuda, EveryCaseAgreesWithTheOracleInEveryVariant) {
  double worst[2][2] = {};
  for (const AttentionCase& c : cases()) {
    for (const auto type : {ElementType::kBFloat16, ElementType::kFloat16}) {
      HostAttention problem(c);
      test::round_operands(problem, type);
      const test::AttentionResult64 expected = problem.oracle();
      for (const Variant& v : variants()) {
        if (v.type != type) continue;
        SCOPED_TRACE(c.name + " " + v.name());
        DeviceAttention device(problem, v.type, v.precision);
        run(device, v.deterministic);
        if (HasFatalFailure()) return;
        const double o = test::relative_l2(problem.o.values(), expected.o);
        const double d_q = test::relative_l2(problem.d_q.values(), expected.d_q);
        const double d_k = test::relative_l2(problem.d_k.values(), expected.d_k);
        const double d_v = test::relative_l2(problem.d_v.values(), expected.d_v);
        EXPECT_LE(o, v.output());
        EXPECT_LE(d_v, v.output());
        EXPECT_LE(d_q, v.gradient());
        EXPECT_LE(d_k, v.gradient());
        const int half = type == ElementType::kFloat16 ? 1 : 0;
        worst[half][0] = std::max({worst[half][0], o, d_v});
        worst[half][1] = std::max({worst[half][1], d_q, d_k});
        for (size_t b = 0; b < problem.d_cell_bias.size(); ++b)
          EXPECT_NEAR(problem.d_cell_bias[b], expected.d_cell_bias[b],
                      test::kHalfBiasGradientOfMagnitudes * expected.d_cell_bias_magnitude[b]);
        expect_zero_padding(problem.shape.query, problem.shape, problem.o);
        expect_zero_padding(problem.shape.query, problem.shape, problem.d_q);
        expect_zero_padding(problem.shape.key, problem.shape, problem.d_k);
        expect_zero_padding(problem.shape.key, problem.shape, problem.d_v);
        for (const auto* x : {&problem.o, &problem.d_q, &problem.d_k, &problem.d_v})
          EXPECT_TRUE(x->guards_untouched());
        EXPECT_TRUE(device.workspace_guard_untouched());
      }
    }
  }
  std::printf("worst relative L2: bf16 %.2e (O, dV) %.2e (dQ, dK); fp16 %.2e, %.2e\n", worst[0][0],
              worst[0][1], worst[1][0], worst[1][1]);
}

/// Fast, because the exact form may differ (kernels/attention_backward_sm90.cu).
TEST_F(AttentionCuda, WithoutTheBiasGradientTheOtherResultsAreTheSameBits) {
  for (const int64_t width : {64, 128}) {
    HostAttention problem({.name = "", .query_lengths = {300, 0, 77}, .width = width});
    test::round_operands(problem, ElementType::kBFloat16);
    DeviceAttention device(problem, ElementType::kBFloat16, SigmoidPrecision::kFast);
    run(device, true, true);
    const auto with =
        std::vector{problem.o.bits(), problem.d_q.bits(), problem.d_k.bits(), problem.d_v.bits()};
    run(device, true, false);
    EXPECT_EQ(with,
              (std::vector{problem.o.bits(), problem.d_q.bits(), problem.d_k.bits(), problem.d_v.bits()}));
  }
}

TEST_F(AttentionCuda, DeterministicModeGivesTheSameBitsEveryTimeAndTheDefaultDoesSaveForDQ) {
  for (const int64_t width : {64, 128})
    for (const bool deterministic : {true, false}) {
      HostAttention problem(
          {.name = "", .query_lengths = {2500, 30, 0, 1111, 640}, .heads = 3, .width = width});
      test::round_operands(problem, ElementType::kBFloat16);
      DeviceAttention device(problem, ElementType::kBFloat16, SigmoidPrecision::kExact);
      run(device, deterministic);
      const auto o = problem.o.bits(), d_q = problem.d_q.bits(), d_k = problem.d_k.bits(),
                 d_v = problem.d_v.bits();
      const auto d_bias = problem.d_cell_bias;
      for (int repeat = 0; repeat < 3; ++repeat) {
        run(device, deterministic);
        EXPECT_EQ(problem.o.bits(), o);
        EXPECT_EQ(problem.d_k.bits(), d_k);
        EXPECT_EQ(problem.d_v.bits(), d_v);
        EXPECT_EQ(problem.d_cell_bias, d_bias);
        if (deterministic) {
          EXPECT_EQ(problem.d_q.bits(), d_q);
        }
      }
    }
}

/// Weights of exactly one half and small integers: O is half of the sum of the cell's values, without
/// rounding in the sums, so a lost, doubled or foreign key cannot hide.
TEST_F(AttentionCuda, WithZeroQueriesTheOutputIsExactlyHalfTheSumOfTheValues) {
  std::vector<std::vector<int32_t>> packs{{16384}, {1023, 1, 4097, 0, 192}, test::three_hundred_lengths()};
  for (const auto& lengths : packs)
    for (const int64_t width : {64, 128})
      for (const Variant& v : variants()) {
        if (v.deterministic || (lengths.size() == 1 && v.type == ElementType::kFloat16)) continue;
        HostAttention problem(
            {.name = "", .query_lengths = lengths, .heads = 2, .width = width, .bias = BiasKind::kScalar});
        problem.shape.scalar_bias = 0.0F;
        std::vector<double> expected;
        const auto value = [](int64_t t, int64_t h, int64_t d) {
          return static_cast<float>((t * 7 + h * 3 + d) % 5 - 2);
        };
        for (int64_t cell = 0; cell < problem.shape.num_cells; ++cell) {
          const test::CellTokens tokens = test::tokens_of(problem.shape.query, cell);
          std::vector<float> sums(static_cast<size_t>(2 * width));
          for (int64_t t = tokens.begin; t < tokens.begin + tokens.length; ++t)
            for (int64_t h = 0; h < 2; ++h)
              for (int64_t d = 0; d < width; ++d) {
                problem.q.at(t, h, d) = 0.0F;
                problem.v.at(t, h, d) = value(t, h, d);
                sums[static_cast<size_t>(h * width + d)] += 0.5F * value(t, h, d);
              }
          for (int64_t t = 0; t < tokens.length; ++t)
            for (const float sum : sums)
              expected.push_back(static_cast<double>(test::from_half(test::to_half(sum, v.type), v.type)));
        }
        test::round_operands(problem, v.type);
        DeviceAttention device(problem, v.type, v.precision);
        device.reset();
        ASSERT_EQ(device.forward(), cudaSuccess);
        device.download();
        EXPECT_EQ(problem.o.values(), expected)
            << v.name() << " width " << width << " cells " << lengths.size();
      }
}

/// With V = 1 every output is the sum of its row's weights: a systematic error of the sigmoid cannot average
/// out.
TEST_F(AttentionCuda, SumsOfWeightsHaveNoSystematicErrorBeyondTheStatedOne) {
  for (const int32_t n : {512, 2048, 8192, 16384})
    for (const auto precision : {SigmoidPrecision::kExact, SigmoidPrecision::kFast}) {
      HostAttention problem({.name = "", .query_lengths = {n}, .heads = 1, .width = 64});
      for (int64_t t = 0; t < n; ++t)
        for (int64_t d = 0; d < 64; ++d) problem.v.at(t, 0, d) = 1.0F;
      test::round_operands(problem, ElementType::kFloat16);
      DeviceAttention device(problem, ElementType::kFloat16, precision);
      device.reset();
      ASSERT_EQ(device.forward(), cudaSuccess);
      device.download();
      double mean = 0;
      constexpr int kRows = 256;
      for (int row = 0; row < kRows; ++row) {
        const int64_t i = int64_t{row} * n / kRows;
        double sum = 0;
        for (int64_t j = 0; j < n; ++j) {
          double score = 0;
          for (int64_t d = 0; d < 64; ++d)
            score += static_cast<double>(problem.q.at(i, 0, d)) * static_cast<double>(problem.k.at(j, 0, d));
          sum += 1.0 / (1.0 + std::exp(-static_cast<double>(problem.shape.scale) * score) * n);
        }
        mean += (static_cast<double>(problem.o.at(i, 0, 0)) / sum - 1.0) / kRows;
      }
      std::printf("mean signed error of sums of weights, n %d, %s: %+.2e\n", n,
                  precision == SigmoidPrecision::kExact ? "exact" : "fast", mean);
      const double allowed = precision == SigmoidPrecision::kExact
                                 ? test::kExactSumSignedRelative
                                 : test::kExactSumSignedRelative + test::kFastSigmoidAbsolute * n;
      EXPECT_LE(std::fabs(mean), allowed);
    }
}

TEST_F(AttentionCuda, AKeyBiasOfMinusInfinityRemovesTheKey) {
  for (const int64_t width : {64, 128}) {
    AttentionCase c{
        .name = "", .query_lengths = {90, 20}, .width = width, .bias = BiasKind::kScalar, .key_bias = true};
    HostAttention problem(c);
    std::vector<float> key_bias(110, -INFINITY);  // the second cell loses all of its keys
    for (size_t j = 0; j < 90; j += 2) key_bias[j] = 0.5F;
    problem.shape.key_bias = key_bias.data();
    test::round_operands(problem, ElementType::kBFloat16);
    DeviceAttention device(problem, ElementType::kBFloat16, SigmoidPrecision::kExact);
    run(device, false);
    const auto row = static_cast<size_t>(2 * width);
    const std::vector<double> o = problem.o.values(), d_v = problem.d_v.values(), d_q = problem.d_q.values();
    for (size_t i = 0; i < 90 * row; ++i) ASSERT_TRUE(std::isfinite(o[i]));
    for (size_t i = 90 * row; i < o.size(); ++i) ASSERT_EQ(o[i], 0.0);
    for (size_t j = 1; j < 90; j += 2) ASSERT_EQ(d_v[j * row], 0.0);
    for (size_t j = 0; j < 90; j += 2) ASSERT_NE(d_v[j * row], 0.0);
    for (const double gradient : d_q) ASSERT_TRUE(std::isfinite(gradient));
  }
}

TEST_F(AttentionCuda, NaNInAValidTokenReachesItsOwnCellAndNoOther) {
  for (const int64_t width : {64, 128})
    for (const Variant& v : variants()) {
      HostAttention problem({.name = "", .query_lengths = {130, 40, 70}, .width = width});
      test::round_operands(problem, v.type);
      problem.k.at(133, 0, 0) = NAN;
      problem.q.at(133, 1, 0) = NAN;
      DeviceAttention device(problem, v.type, v.precision);
      run(device, v.deterministic);
      const auto row = static_cast<size_t>(2 * width);
      const std::vector<double> o = problem.o.values();
      EXPECT_TRUE(std::isnan(o[130 * row])) << v.name();
      EXPECT_TRUE(std::isnan(o[133 * row + row / 2])) << v.name();
      for (const auto* x : {&problem.o, &problem.d_q, &problem.d_k, &problem.d_v}) {
        const std::vector<double> values = x->values();
        for (size_t i = 0; i < values.size(); ++i)
          if (i / row < 130 || i / row >= 170) {
            ASSERT_FALSE(std::isnan(values[i])) << v.name() << " " << i / row;
          }
      }
    }
}

TEST_F(AttentionCuda, TwoStreamsAtOnceGiveTheResultsOfOne) {
  HostAttention first({.name = "", .query_lengths = {1500, 200, 900}, .heads = 4, .width = 64}, 1);
  HostAttention second({.name = "", .query_lengths = {700, 1300}, .heads = 4, .width = 128}, 2);
  std::vector<cudaStream_t> streams(2);
  for (auto& stream : streams)
    test::check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  std::vector<DeviceAttention> devices;
  std::vector<std::vector<uint32_t>> alone;
  const auto bits = [](HostAttention& x) {
    return std::vector{x.o.bits(), x.d_q.bits(), x.d_k.bits(), x.d_v.bits()};
  };
  std::vector<std::vector<std::vector<uint32_t>>> expected;
  for (HostAttention* problem : {&first, &second}) {
    test::round_operands(*problem, ElementType::kBFloat16);
    devices.emplace_back(*problem, ElementType::kBFloat16, SigmoidPrecision::kFast);
    run(devices.back(), true);
    expected.push_back(bits(*problem));
  }
  for (int repeat = 0; repeat < 5; ++repeat) {
    for (DeviceAttention& device : devices) device.reset();
    for (size_t i = 0; i < 2; ++i) ASSERT_EQ(devices[i].forward(streams[i]), cudaSuccess);
    for (size_t i = 0; i < 2; ++i) ASSERT_EQ(devices[i].backward(true, true, streams[i]), cudaSuccess);
    for (DeviceAttention& device : devices) device.download();
    EXPECT_EQ(bits(first), expected[0]);
    EXPECT_EQ(bits(second), expected[1]);
  }
  for (const auto stream : streams) cudaStreamDestroy(stream);
}

TEST_F(AttentionCuda, ACapturedGraphReplaysToTheSameBits) {
  HostAttention problem({.name = "", .query_lengths = {333, 0, 800}, .heads = 2, .width = 64});
  test::round_operands(problem, ElementType::kBFloat16);
  DeviceAttention device(problem, ElementType::kBFloat16, SigmoidPrecision::kExact);
  run(device, true);
  const auto o = problem.o.bits(), d_q = problem.d_q.bits(), d_k = problem.d_k.bits();
  cudaStream_t stream = nullptr;
  test::check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  test::check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
  ASSERT_EQ(device.forward(stream), cudaSuccess);
  ASSERT_EQ(device.backward(true, true, stream), cudaSuccess);
  test::check_cuda(cudaStreamEndCapture(stream, &graph), "capture");
  test::check_cuda(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
  for (int repeat = 0; repeat < 3; ++repeat) {
    device.reset();
    test::check_cuda(cudaGraphLaunch(executable, stream), "replay");
    device.download();
    EXPECT_EQ(problem.o.bits(), o);
    EXPECT_EQ(problem.d_q.bits(), d_q);
    EXPECT_EQ(problem.d_k.bits(), d_k);
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

/// Outputs and gradients of some tokens of a cell too long for the whole oracle.
TEST_F(AttentionCuda, SampledTokensOfACellOf16384AgreeWithTheOracle) {
  constexpr int32_t n = 16384;
  for (const int64_t width : {64, 128})
    for (const auto precision : {SigmoidPrecision::kExact, SigmoidPrecision::kFast}) {
      HostAttention problem({.name = "", .query_lengths = {n}, .heads = 1, .width = width});
      test::round_operands(problem, ElementType::kBFloat16);
      DeviceAttention device(problem, ElementType::kBFloat16, precision);
      run(device, false);
      const auto row = [&](test::GuardedTokens& x, int64_t t) {
        std::vector<double> r;
        for (int64_t d = 0; d < width; ++d) r.push_back(static_cast<double>(x.at(t, 0, d)));
        return r;
      };
      const auto dot = [](const std::vector<double>& a, const std::vector<double>& b) {
        double sum = 0;
        for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
        return sum;
      };
      const double scale = problem.shape.scale;
      std::vector<double> expected[4], actual[4];
      for (int sample = 0; sample < 8; ++sample) {
        const int64_t i = int64_t{sample} * (n - 1) / 7;
        std::vector<double> sums[4];
        for (auto& sum : sums) sum.assign(static_cast<size_t>(width), 0.0);
        const auto q_i = row(problem.q, i), k_i = row(problem.k, i), v_i = row(problem.v, i),
                   d_o_i = row(problem.d_o, i);
        for (int64_t j = 0; j < n; ++j) {
          const auto q_j = row(problem.q, j), k_j = row(problem.k, j), v_j = row(problem.v, j),
                     d_o_j = row(problem.d_o, j);
          const auto weight = [&](const auto& q, const auto& k) {
            return 1.0 / (1.0 + n * std::exp(-scale * dot(q, k)));
          };
          const double p = weight(q_i, k_j);
          const double d_s = p * (1 - p) * dot(d_o_i, v_j);
          const double p_t = weight(q_j, k_i);
          const double d_s_t = p_t * (1 - p_t) * dot(d_o_j, v_i);
          for (size_t d = 0; d < static_cast<size_t>(width); ++d) {
            sums[0][d] += p * v_j[d];
            sums[1][d] += scale * d_s * k_j[d];
            sums[2][d] += scale * d_s_t * q_j[d];
            sums[3][d] += p_t * d_o_j[d];
          }
        }
        test::GuardedTokens* outputs[4] = {&problem.o, &problem.d_q, &problem.d_k, &problem.d_v};
        for (size_t x = 0; x < 4; ++x) {
          expected[x].insert(expected[x].end(), sums[x].begin(), sums[x].end());
          const auto values = row(*outputs[x], i);
          actual[x].insert(actual[x].end(), values.begin(), values.end());
        }
      }
      const double tolerance[4] = {test::kBFloat16AttentionOutput, test::kBFloat16AttentionGradient,
                                   test::kBFloat16AttentionGradient, test::kBFloat16AttentionOutput};
      const char* names[4] = {"O", "dQ", "dK", "dV"};
      for (size_t x = 0; x < 4; ++x) {
        const double error = test::relative_l2(actual[x], expected[x]);
        std::printf("n %d width %d %s %s: %.2e\n", n, static_cast<int>(width),
                    precision == SigmoidPrecision::kExact ? "exact" : "fast", names[x], error);
        EXPECT_LE(error, tolerance[x]) << names[x] << " width " << width;
      }
    }
}

}  // namespace
}  // namespace scrna::kernels
