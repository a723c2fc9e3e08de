// Compiled for the CPU and for CUDA (tests/support/test_device.h).
#include "lib/ops/embedding.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/fused_reference64.h"
#include "tests/support/reference64.h"
#include "tests/support/test_device.h"
#include "tests/support/tolerance.h"

namespace scrna::ops {
namespace {

using test::doubles;
using test::exact_randn;
using test::relative_l2;

/// Two cells' tokens: most ids rare, one in six (like <mask>) everywhere; ranks count up inside each cell.
struct Case {
  at::Tensor genes, ranks, gene_ids, rank_ids, d_e;
  CellDropout dropout;

  Case(int64_t tokens, int64_t width, int64_t num_genes, double probability = 0.2)
      : genes(exact_randn({num_genes, width})),
        ranks(exact_randn({tokens + 3, width})),
        gene_ids(at::randint(num_genes, {tokens}, at::kLong)),
        d_e(exact_randn({tokens, width})) {
    const int64_t half = tokens / 2;
    gene_ids.masked_fill_(at::randint(6, {tokens}, at::kLong).eq(0), num_genes / 2);
    rank_ids = at::arange(tokens, at::kLong).remainder(std::max<int64_t>(1, tokens - half));
    dropout = {
        .cu_seqlens = at::tensor({0, static_cast<int32_t>(half), static_cast<int32_t>(tokens)}, at::kInt),
        .cell_ids = at::tensor(std::vector<int64_t>{50, -60}, at::kLong),
        .site = {.seed = 4, .step = 1, .layer = 12, .site = 0, .probability = probability}};
  }
  [[nodiscard]] at::Tensor factor() const {
    return ops::dropout(at::ones(d_e.sizes()), dropout.cu_seqlens, dropout.cell_ids, dropout.site);
  }
  /// {e, gradient of genes, gradient of ranks}
  [[nodiscard]] std::vector<std::vector<double>> oracle() const {
    const auto which = [](const at::Tensor& ids) {
      return std::vector<int64_t>(ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + ids.numel());
    };
    return test::embedding_reference64(doubles(genes), which(gene_ids), doubles(ranks), which(rank_ids),
                                       doubles(factor()), doubles(d_e));
  }
};

std::vector<at::Tensor> run(const Case& c, at::Device device, at::ScalarType table_type, at::ScalarType type,
                            Implementation implementation) {
  const EmbeddingLookup genes{c.genes.to(device, table_type).clone().requires_grad_(), c.gene_ids.to(device)};
  const EmbeddingLookup ranks{c.ranks.to(device, table_type).clone().requires_grad_(), c.rank_ids.to(device)};
  const CellDropout dropout{c.dropout.cu_seqlens.to(device), c.dropout.cell_ids.to(device), c.dropout.site};
  const at::Tensor e =
      embed(genes, ranks, type, c.dropout.site.probability > 0 ? std::optional(dropout) : std::nullopt,
            implementation);
  e.backward(c.d_e.to(device, type));
  return {e, genes.table.grad(), ranks.table.grad()};
}

class EmbeddingOp : public test::OnDevice {};

TEST_F(EmbeddingOp, TheTwinInDoubleIsTheDefinition) {
  const Case c(150, 20, 40, 0.0);
  const auto result = run(c, device(), at::kDouble, at::kDouble, Implementation::kComposed);
  const auto expected = c.oracle();
  for (size_t i = 0; i < 3; ++i)
    EXPECT_LE(relative_l2(doubles(result[i]), expected[i]), test::kFloat64RelativeL2) << i;
}

TEST_F(EmbeddingOp, IsAtMostTwiceAsFarFromTheOracleAsTheTwin) {
  // One token, one piece and a bit, all one id, many rare ids; widths of one and several slabs; 767 is the
  // twin's.
  for (const Case& c : {Case(1, 8, 5), Case(33, 64, 1), Case(300, 264, 50), Case(200, 768, 500),
                        Case(100, 1024, 3), Case(65, 767, 30), Case(97, 64, 9, 0.0)}) {
    const auto expected = c.oracle();
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const auto twin = run(c, device(), at::kFloat, type, Implementation::kComposed);
      const auto result = run(c, device(), at::kFloat, type, Implementation::kAuto);
      for (size_t i = 0; i < 3; ++i)
        EXPECT_LE(relative_l2(doubles(result[i]), expected[i]),
                  test::kTwinFactor * relative_l2(doubles(twin[i]), expected[i]) + test::kTwinFloor)
            << i << " of " << c.d_e.size(0) << " x " << c.d_e.size(1) << " " << type;
    }
  }
}

TEST_F(EmbeddingOp, OneTableWithoutDropoutIsALookup) {
  const Case c(100, 64, 30);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const at::Tensor table = c.genes.to(device(), type);
    const at::Tensor e = embed({table, here(c.gene_ids)}, {}, type);
    EXPECT_TRUE(e.equal(at::index_select(table, 0, here(c.gene_ids))));
  }
}

TEST_F(EmbeddingOp, TheGradientIsBitwiseEqualFromRunToRunAndAddsWhereAsked) {
  const Case c(5000, 256, 700);
  const auto first = run(c, device(), at::kFloat, at::kBFloat16, Implementation::kAuto);
  const CellDropout dropout{here(c.dropout.cu_seqlens), here(c.dropout.cell_ids), c.dropout.site};
  for (int repeat = 0; repeat < 3; ++repeat) {
    const auto again = run(c, device(), at::kFloat, at::kBFloat16, Implementation::kAuto);
    for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(again[i].equal(first[i])) << i;
  }
  const at::Tensor sum = at::full({700, 256}, 2.0, at::TensorOptions(device()));
  add_embedding_gradient(sum, here(c.gene_ids), c.d_e.to(device(), at::kBFloat16), dropout);
  EXPECT_LE(relative_l2(doubles(sum.sub(2.0)), doubles(first[1])), test::kFloat32RelativeL2);
}

TEST_F(EmbeddingOp, RowsOfAbsentIdsGetNoGradient) {
  const at::Tensor ids = at::tensor(std::vector<int64_t>{7, 7, 2}, at::kLong);
  const at::Tensor table = at::ones({10, 16}, at::TensorOptions(device())).requires_grad_();
  embed({table, here(ids)}, {}, at::kFloat).sum().backward();
  const auto rows = doubles(table.grad().select(1, 3));
  EXPECT_EQ(rows, (std::vector<double>{0, 0, 1, 0, 0, 0, 0, 2, 0, 0}));
}

TEST_F(EmbeddingOp, ManyTokensNoTokensAndWrongIds) {
  const Case many(65537, 8, 3);
  const auto result = run(many, device(), at::kFloat, at::kFloat, Implementation::kAuto);
  const auto expected = many.oracle();
  for (size_t i = 0; i < 3; ++i)
    EXPECT_LE(relative_l2(doubles(result[i]), expected[i]), test::kFloat32LongSumRelativeL2) << i;
  const Case none(0, 64, 5, 0.0);
  EXPECT_EQ(run(none, device(), at::kFloat, at::kFloat, Implementation::kAuto)[1].abs().max().item<float>(),
            0.0F);
  for (const int64_t wrong : {-1, 3, 1000000}) {
    Case c(40, 16, 3);
    c.gene_ids[11] = wrong;
    const EmbeddingLookup lookup{c.genes.to(device(), at::kFloat), here(c.gene_ids)};
    if (test::kOnCuda)
      EXPECT_EQ(at::isnan(embed(lookup, {}, at::kFloat)).sum().item<int64_t>(), 16);
    else
      EXPECT_THROW(embed(lookup, {}, at::kFloat), InternalError);
  }
}

TEST_F(EmbeddingOp, AKernelThatCannotServeIsRefused) {
  const Case c(10, 20, 4, 0.0);
  EXPECT_THROW(run(c, device(), at::kFloat, at::kFloat, Implementation::kKernel), ConfigError);
  EXPECT_THROW(run(c, device(), at::kBFloat16, at::kBFloat16, Implementation::kKernel), ConfigError);
  EXPECT_THROW(
      embed({here(c.genes), here(c.gene_ids)}, {here(c.ranks.to(at::kFloat)), here(c.rank_ids)}, at::kDouble),
      InternalError);
  EXPECT_THROW(embed({here(c.genes), here(c.gene_ids.to(at::kInt))}, {}, at::kDouble), InternalError);
}

TEST_F(EmbeddingOp, ChosenRowsAndTheirGradientAreCopies) {
  for (const auto& [rows, width, chosen] : {std::tuple<int64_t, int64_t, int64_t>{1, 8, 1},
                                            {300, 768, 45},
                                            {65537, 16, 9000},
                                            {50, 20, 7},
                                            {20, 767, 20},
                                            {9, 64, 0}})
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      const at::Tensor positions = std::get<0>(at::sort(at::randperm(rows, at::kLong).narrow(0, 0, chosen)));
      const at::Tensor x = exact_randn({rows, width}).to(device(), type).requires_grad_();
      const at::Tensor d = exact_randn({chosen, width}).to(device(), type);
      const at::Tensor selected = select_rows(x, here(positions));
      selected.backward(d);
      EXPECT_TRUE(selected.equal(at::index_select(x.detach(), 0, here(positions))));
      at::Tensor expected = at::zeros({rows, width}, x.options().requires_grad(false));
      expected.index_copy_(0, here(positions), d);
      EXPECT_TRUE(x.grad().equal(expected)) << rows << " x " << width;
    }
}

TEST_F(EmbeddingOp, PositionsThatDoNotAscendAreRefusedOnTheCpu) {
  if (test::kOnCuda) GTEST_SKIP() << "a GPU's positions are not looked at, that would wait for them";
  const at::Tensor x = at::zeros({5, 8});
  for (const std::vector<int64_t>& wrong : {std::vector<int64_t>{0, 0}, {3, 1}, {-1, 2}, {4, 5}})
    EXPECT_THROW(select_rows(x, at::tensor(wrong, at::kLong)), InternalError);
}

}  // namespace
}  // namespace scrna::ops
