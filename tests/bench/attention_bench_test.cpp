// What `bench attention` measures: its rows, its turns, and that a form with wrong results gets no number.
#include "lib/bench/attention_bench.h"

#include <algorithm>
#include <set>

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones_like.h>
#include <gtest/gtest.h>

#include "lib/bench/attention_forms.h"
#include "lib/bench/timer.h"
#include "lib/core/error.h"
#include "tests/support/expect_error.h"

namespace scrna::bench {
namespace {

const AttentionRow& row_named(const std::vector<AttentionRow>& rows, const std::string& name) {
  return *std::find_if(rows.begin(), rows.end(), [&](const AttentionRow& row) { return row.name == name; });
}

TEST(AttentionRows, AreThoseOfTheReadmeWithNamesOfTheirOwn) {
  const auto rows = gpu_attention_rows(16384);
  std::set<std::string> names;
  for (const AttentionRow& row : rows) names.insert(row.name);
  EXPECT_EQ(names.size(), rows.size());
  for (const char* name : {"d64 T=512", "d128 T=16384", "d64 T=8192 pad 25%", "d128 T=1024 pad 50%",
                           "ragged 32 cells 12x64", "ragged 128 cells 16x128", "one cell of 500 12x64"})
    EXPECT_TRUE(names.contains(name)) << name;
  for (const AttentionRow& row : rows) {
    EXPECT_EQ(row.num_heads * row.head_width == 2048,
              row.name.starts_with("d64") || row.name.starts_with("d128") || row.name.ends_with("16x128"));
    if (row.padded_length == 0 && row.name.starts_with("d")) {
      EXPECT_EQ(row.valid_tokens(), 16384) << row.name;
    }
  }
}

TEST(AttentionRows, PaddingIsDrawnFromTheShareThatTheNameSays) {
  const auto rows = gpu_attention_rows(16384);
  const AttentionRow& row = row_named(rows, "d64 T=512 pad 50%");
  EXPECT_EQ(row.padded_length, 512);
  EXPECT_EQ(row.lengths.size(), 32U);
  for (const int32_t length : row.lengths) {
    EXPECT_GE(length, 256);
    EXPECT_LE(length, 512);
  }
  EXPECT_FALSE(row.has_equal_lengths());
  EXPECT_GT(row.valid_tokens(), 32 * 320);  // 384 on average
  EXPECT_LT(row.valid_tokens(), 32 * 448);
}

TEST(AttentionRows, RaggedLengthsAreThoseOfCellxgene) {
  const auto rows = gpu_attention_rows(16384);
  std::vector<int32_t> lengths = row_named(rows, "ragged 128 cells 12x64").lengths;
  std::sort(lengths.begin(), lengths.end());
  EXPECT_GE(lengths.front(), 200);
  EXPECT_LE(lengths.back(), 8192);
  // The median of 2^N(10.75, 1.25) is 1,722; that of 128 draws is within a factor of 1.8 (8 standard errors).
  EXPECT_GT(lengths[64], 1722 / 1.8);
  EXPECT_LT(lengths[64], 1722 * 1.8);
}

TEST(AttentionRows, FloatingPointOperationsAreThoseOfValidTokens) {
  const AttentionRow row{.name = "", .lengths = {3, 5}, .padded_length = 7, .num_heads = 2, .head_width = 8};
  EXPECT_EQ(row.forward_flop(), 4.0 * 2 * 8 * (9 + 25));
  EXPECT_EQ(row.valid_tokens(), 8);
}

TEST(AttentionRows, FewTokensMakeOneShorterRow) {
  for (const auto& rows : {gpu_attention_rows(96), cpu_attention_rows(96)})
    for (const AttentionRow& row : rows)
      if (row.name.starts_with("d")) {
        EXPECT_NE(row.name.find("T=96"), std::string::npos) << row.name;
      }
}

TEST(Timer, CallsTakeTurnsAndEachIsTimed) {
  std::string order;
  const auto medians = median_milliseconds_in_turns({[&] { order += 'a'; }, [&] { order += 'b'; }}, 0.001);
  EXPECT_TRUE(order.starts_with("abababab")) << order;  // one turn to warm up, at least three measured
  EXPECT_EQ(medians.size(), 2U);
  for (const double milliseconds : medians) EXPECT_GE(milliseconds, 0.0);
}

std::vector<double> one_each(const std::vector<Call>& calls) {
  for (const Call& call : calls) call();
  return std::vector<double>(calls.size(), 1.0);
}

const AttentionRow kSmall{.name = "small", .lengths = {20, 30}, .num_heads = 2, .head_width = 16};

TEST(MeasureRow, FormsOfOneKindAgreeOnTheCpu) {
  const std::vector<AttentionForm> forms{our_cpu_attention(kernels::AttentionKind::kSigmoid),
                                         our_cpu_attention(kernels::AttentionKind::kSoftmax),
                                         libtorch_cpu_attention()};
  for (const AttentionRow& row : {kSmall, AttentionRow{"equal", {25, 25}, 0, 2, 16}}) {
    const AttentionRowResult result = measure_row(row, forms, at::kCPU, at::kFloat, one_each);
    for (const AttentionMeasurement& measured : result.forms) {
      EXPECT_EQ(measured.problem, "");
      EXPECT_EQ(measured.forward_milliseconds, 1.0);
      EXPECT_EQ(measured.backward_milliseconds, 1.0);
    }
  }
}

TEST(MeasureRow, AFormWithWrongResultsGetsNoNumberButTheReason) {
  const AttentionForm right = our_cpu_attention(kernels::AttentionKind::kSoftmax);
  AttentionForm wrong = right;
  wrong.prepare = [&](const AttentionProblem& problem) {
    AttentionPasses passes = right.prepare(problem);
    passes.backward = [backward = passes.backward] {
      auto gradients = backward();
      gradients[1] = gradients[1] * 1.1;
      return gradients;
    };
    return passes;
  };
  AttentionForm broken = right;
  broken.prepare = [](const AttentionProblem& problem) -> AttentionPasses {
    problem.qkv.view({-7});  // LibTorch refuses
    return {};
  };
  AttentionForm unable = right;
  unable.missing = [](const AttentionRow&) { return "not made for this"; };
  const auto result = measure_row(kSmall, {right, wrong, broken, unable}, at::kCPU, at::kFloat, one_each);
  EXPECT_EQ(result.forms[0].problem, "");
  EXPECT_CONTAINS(result.forms[1].problem, "its dK differs");
  EXPECT_CONTAINS(result.forms[2].problem, "-7");
  EXPECT_EQ(result.forms[3].problem, "not made for this");
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_FALSE(result.forms[i].forward_milliseconds.has_value());
    EXPECT_FALSE(result.forms[i].backward_milliseconds.has_value());
  }
}

TEST(AttentionBench, WordsChooseRowsAndAWordThatFitsNoneIsRefused) {
  const AttentionBench all({.device = Device::kCpu});
  const AttentionBench some({.device = Device::kCpu, .only = {"ragged", "d128"}});
  EXPECT_LT(some.rows().size(), all.rows().size());
  EXPECT_EQ(some.rows().size(), 2U);
  const std::string message =
      test::message_of<ConfigError>([] { AttentionBench({.device = Device::kCpu, .only = {"d32"}}); });
  for (const char* part : {"--only d32", "d64 T=2048", "one cell"}) EXPECT_CONTAINS(message, part);
}

}  // namespace
}  // namespace scrna::bench
