#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "kernels/attention_cuda.h"
#include "tests/kernels/attention_cuda_fixture.h"

namespace scrna::kernels {
namespace {

/// Weights of exactly one half and small integers: O is half of the sum of the cell's values, without
/// rounding in the sums, so a lost, doubled or foreign key cannot hide.
TEST_P(AttentionCuda, WithZeroQueriesTheOutputIsExactlyHalfTheSumOfTheValues) {
  std::vector<std::vector<int32_t>> packs{{16384}, {1023, 1, 4097, 0, 192}, test::three_hundred_lengths()};
  for (const auto& lengths : packs)
    for (const int64_t width : widths())
      for (const Variant& v : variants()) {
        if (v.deterministic || (lengths.size() == 1 && v.type == ElementType::kFloat16)) continue;
        PathProblem problem(
            GetParam(),
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
TEST_P(AttentionCuda, SumsOfWeightsHaveNoSystematicErrorBeyondTheStatedOne) {
  for (const int32_t n : {512, 2048, 8192, 16384})
    for (const auto precision : {SigmoidPrecision::kExact, SigmoidPrecision::kFast}) {
      PathProblem problem(GetParam(), {.name = "", .query_lengths = {n}, .heads = 1, .width = 64});
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

/// Outputs and gradients of some tokens of a cell too long for the whole oracle.
TEST_P(AttentionCuda, SampledTokensOfACellOf16384AgreeWithTheOracle) {
  constexpr int32_t n = 16384;
  for (const int64_t width : widths())
    for (const auto precision : {SigmoidPrecision::kExact, SigmoidPrecision::kFast}) {
      PathProblem problem(GetParam(), {.name = "", .query_lengths = {n}, .heads = 1, .width = width});
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

/// Two independent implementations on the same operands, at a length where the oracle would be too slow. Each
/// is within the gate of the truth, so they are within twice the gate of each other; a key lost or counted
/// twice near a tile's border of either would show as one part in a thousand or more.
TEST(AttentionCudaPaths, HopperAndPortableKernelsAgree) {
  if (test::compute_capability() != 90) GTEST_SKIP() << "needs compute capability 9.0";
  for (const int64_t width : {64, 128})
    for (const bool deterministic : {false, true}) {
      const AttentionCase c{
          .name = "", .query_lengths = {3001, 517, 0, 4096, 64}, .width = width, .key_bias = true};
      PathProblem hopper(CudaPath::kFastest, c);
      PathProblem portable(CudaPath::kPortable, c);
      for (HostAttention* problem :
           {static_cast<HostAttention*>(&hopper), static_cast<HostAttention*>(&portable)}) {
        test::round_operands(*problem, ElementType::kFloat16);
        DeviceAttention device(*problem, ElementType::kFloat16, SigmoidPrecision::kExact);
        run(device, deterministic);
      }
      EXPECT_LE(test::relative_l2(portable.o.values(), hopper.o.values()), 2 * test::kFloat16AttentionOutput);
      EXPECT_LE(test::relative_l2(portable.d_v.values(), hopper.d_v.values()),
                2 * test::kFloat16AttentionOutput);
      EXPECT_LE(test::relative_l2(portable.d_q.values(), hopper.d_q.values()),
                2 * test::kFloat16AttentionGradient);
      EXPECT_LE(test::relative_l2(portable.d_k.values(), hopper.d_k.values()),
                2 * test::kFloat16AttentionGradient);
    }
}

}  // namespace
}  // namespace scrna::kernels
