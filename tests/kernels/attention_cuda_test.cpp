#include "kernels/attention_cuda.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/kernels/attention_cuda_fixture.h"

namespace scrna::kernels {
namespace {

INSTANTIATE_TEST_SUITE_P(Path, AttentionCuda, testing::Values(CudaPath::kFastest, CudaPath::kPortable),
                         [](const auto& path) {
                           return path.param == CudaPath::kFastest ? "Hopper" : "Portable";
                         });

/// The cases of the table that these kernels compute, those of width 64 in all widths of the path.
std::vector<AttentionCase> cases(const std::vector<int64_t>& widths) {
  std::vector<AttentionCase> all;
  for (AttentionCase c : test::attention_cases()) {
    if (c.kind != AttentionKind::kSigmoid) continue;
    if (c.name.find("300_cells") != std::string::npos || c.name.find("many_short") != std::string::npos)
      c.width = 64;
    if (std::find(widths.begin(), widths.end(), c.width) == widths.end()) continue;
    all.push_back(c);
    if (c.width != 64) continue;
    const std::string name = c.name;
    for (const int64_t width : widths) {
      if (width == 64) continue;
      c.width = width;
      c.name = name + "_" + std::to_string(width);
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

TEST(AttentionCudaChoice, UnsupportedCallsAreRefusedWithTheReason) {
  const auto reason = [](int capability, AttentionKind kind, ElementType type, int64_t width) {
    const char* text = attention_cuda_unsupported(capability, kind, type, width);
    return std::string(text == nullptr ? "" : text);
  };
  for (const int capability : {80, 86, 90, 120})
    for (const int64_t width : {32, 64, 96, 128})
      for (const auto type : {ElementType::kBFloat16, ElementType::kFloat16})
        EXPECT_EQ(reason(capability, AttentionKind::kSigmoid, type, width), "");
  const auto expect_named = [](const std::string& text, const char* what) {
    EXPECT_NE(text.find(what), std::string::npos) << text;
  };
  expect_named(reason(75, AttentionKind::kSigmoid, ElementType::kFloat16, 64), "8.0 or later");
  expect_named(reason(90, AttentionKind::kSoftmax, ElementType::kBFloat16, 64), "sigmoid");
  expect_named(reason(90, AttentionKind::kSigmoid, ElementType::kFloat32, 64), "bf16 and fp16");
  expect_named(reason(80, AttentionKind::kSigmoid, ElementType::kBFloat16, 80), "32, 64, 96 and 128");
  AttentionForward call;
  call.shape.head_width = 80;
  EXPECT_EQ(attention_forward_cuda(call, nullptr, nullptr), cudaErrorInvalidValue);
}

TEST(AttentionCudaChoice, HopperKernelsServeHopperInTwoWidthsUnlessThePortableOnesAreAskedFor) {
  EXPECT_EQ(attention_cuda_path(90, 64), CudaPath::kFastest);
  EXPECT_EQ(attention_cuda_path(90, 128), CudaPath::kFastest);
  EXPECT_EQ(attention_cuda_path(90, 128, CudaPath::kPortable), CudaPath::kPortable);
  EXPECT_EQ(attention_cuda_path(90, 96), CudaPath::kPortable);
  EXPECT_EQ(attention_cuda_path(80, 64), CudaPath::kPortable);
  EXPECT_EQ(attention_cuda_path(100, 128), CudaPath::kPortable);
}

TEST(AttentionCudaChoice, ViewsMustBeAlignedTo16Bytes) {
  alignas(16) static uint16_t memory[8];
  EXPECT_TRUE(attention_cuda_view_possible({memory, 64, 8}, 2, 2));
  EXPECT_FALSE(attention_cuda_view_possible({memory + 1, 64, 8}, 2, 2));
  EXPECT_FALSE(attention_cuda_view_possible({memory, 63, 8}, 2, 2));
  EXPECT_TRUE(attention_cuda_view_possible({memory, 64, 1}, 2, 1));  // one head: its stride does not matter
}

TEST_P(AttentionCuda, EveryCaseAgreesWithTheOracleInEveryVariant) {
  double worst[2][2] = {};
  for (const AttentionCase& c : cases(widths())) {
    for (const auto type : {ElementType::kBFloat16, ElementType::kFloat16}) {
      PathProblem problem(GetParam(), c);
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
  std::printf("worst relative L2, %s: bf16 %.2e (O, dV) %.2e (dQ, dK); fp16 %.2e, %.2e\n",
              GetParam() == CudaPath::kFastest ? "Hopper" : "portable", worst[0][0], worst[0][1], worst[1][0],
              worst[1][1]);
}

TEST_P(AttentionCuda, AKeyBiasOfMinusInfinityRemovesTheKey) {
  for (const int64_t width : widths()) {
    AttentionCase c{
        .name = "", .query_lengths = {90, 20}, .width = width, .bias = BiasKind::kScalar, .key_bias = true};
    PathProblem problem(GetParam(), c);
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

/// One weight of each row, from 3e-4 to 0.9997, among tiny ones: forms for small weights must notice it,
/// wherever it stands. It is the only key with a value, so O is the weight itself.
TEST_P(AttentionCuda, OneWeightOfAnySizeAmongTinyOnesIsRight) {
  for (const int32_t n : {600, 2048})
    for (const int64_t width : widths())
      for (const Variant& v : variants()) {
        if (v.deterministic) continue;
        PathProblem problem(GetParam(), {.name = "", .query_lengths = {n}, .heads = 1, .width = width});
        const int64_t key = n / 3;
        for (int64_t t = 0; t < n; ++t)
          for (int64_t d = 0; d < width; ++d) {
            problem.q.at(t, 0, d) = 0.0F;
            problem.k.at(t, 0, d) = t == key && d == 0 ? 1.0F : 0.0F;
            problem.v.at(t, 0, d) = t == key ? 1.0F : 0.0F;
          }
        for (int64_t t = 0; t < n; ++t) {
          const float x = -8.0F + 16.0F * static_cast<float>(t) / static_cast<float>(n);
          problem.q.at(t, 0, 0) = (std::log(static_cast<float>(n)) + x) / problem.shape.scale;
        }
        test::round_operands(problem, v.type);
        DeviceAttention device(problem, v.type, v.precision);
        device.reset();
        ASSERT_EQ(device.forward(), cudaSuccess);
        device.download();
        // Rounded twice, as weight and as output; the exact form's own error is 2^-9.
        const double rounding = v.type == ElementType::kBFloat16 ? 0x1.0p-8 : 0x1.0p-11;
        const bool exact = v.precision == SigmoidPrecision::kExact;
        for (int64_t t = 0; t < n; ++t) {
          const double x =
              static_cast<double>(problem.q.at(t, 0, 0)) * static_cast<double>(problem.shape.scale);
          const double weight = 1.0 / (1.0 + n * std::exp(-x));
          const double allowed =
              weight * (rounding + (exact ? 0x1.0p-9 : 0.0)) + (exact ? 0.0 : test::kFastSigmoidAbsolute);
          for (const int64_t d : {int64_t{0}, width - 1})
            ASSERT_NEAR(static_cast<double>(problem.o.at(t, 0, d)), weight, allowed)
                << v.name() << " n " << n << " width " << width << " token " << t;
        }
      }
}

TEST_P(AttentionCuda, NaNInAValidTokenReachesItsOwnCellAndNoOther) {
  for (const int64_t width : widths())
    for (const Variant& v : variants()) {
      PathProblem problem(GetParam(), {.name = "", .query_lengths = {130, 40, 70}, .width = width});
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

}  // namespace
}  // namespace scrna::kernels
