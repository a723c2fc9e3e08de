// What `bench train` trains on, how kernels are told apart and summed, and a whole measurement of a tiny
// model.
#include "lib/bench/train_bench.h"

#include <algorithm>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "lib/bench/kernel_profile.h"
#include "lib/core/error.h"
#include "lib/data/vocabulary.h"
#include "tests/support/expect_error.h"

namespace scrna::bench {
namespace {

TEST(TrainProblem, TheDefaultIsTheLoadOfThePublishedComparison) {
  const train::StepLoad load = load_of(make_batch({.vocabulary = 43804}));
  EXPECT_EQ(load.cells, 32);
  EXPECT_EQ(load.tokens, 65273);  // published: 65,287
  EXPECT_NEAR(load.squared_lengths, 2.09e8, 0.01e8);
  EXPECT_EQ(load.rows, load.tokens);
  EXPECT_NEAR(static_cast<double>(load.masked_tokens), 0.15 * 65273, 32);
}

TEST(TrainProblem, LengthsAreThoseOfCellxgeneCutToTheContext) {
  std::vector<int32_t> lengths = cell_lengths({.cells = 4000, .context = 8192});
  std::sort(lengths.begin(), lengths.end());
  EXPECT_EQ(lengths.front(), 200);
  EXPECT_EQ(lengths.back(), 8192);
  // The median of 2^N(10.75, 1.25) is 1,722; 8 standard errors of that of 4,000 draws: 8 x 1.25 ln 2 sqrt(pi
  // / 8000) = 14 %.
  EXPECT_NEAR(lengths[2000], 1722, 0.14 * 1722);
  const std::vector<int32_t> all = cell_lengths({.context = 8192}), cut = cell_lengths({.context = 2048});
  for (std::size_t cell = 0; cell < all.size(); ++cell) EXPECT_EQ(cut[cell], std::min(all[cell], 2048));
}

TEST(TrainProblem, FullLengthIsTheContextWithAsManyCellsAsMake65536Tokens) {
  for (const int64_t context : {2048, 4096, 8192}) {
    const std::vector<int32_t> lengths = cell_lengths({.lengths = Lengths::kFull, .context = context});
    EXPECT_EQ(static_cast<int64_t>(lengths.size()) * context, 65536);
    EXPECT_EQ(lengths.front(), context);
  }
  EXPECT_EQ(cell_lengths({.lengths = Lengths::kFull, .cells = 3, .context = 16}).size(), 3U);
}

TEST(TrainProblem, PacksKeepTheBudgetAndMaskAsTrainingDoes) {
  const TrainProblem problem{.cells = 20, .context = 512, .vocabulary = 100, .tokens_per_micro_batch = 1000};
  const GlobalBatch batch = make_batch(problem);
  EXPECT_GT(batch.micro_batches.size(), 5U);
  std::set<uint64_t> cells;
  for (const PackedMicroBatch& pack : batch.micro_batches) {
    EXPECT_LE(pack.num_tokens(), 1000);
    EXPECT_EQ(pack.cu_seqlens.back(), pack.num_tokens());
    cells.insert(pack.cell_ids.begin(), pack.cell_ids.end());
    for (std::size_t i = 0; i < pack.masked_positions.size(); ++i) {
      EXPECT_EQ(pack.tokens[static_cast<std::size_t>(pack.masked_positions[i])], data::Vocabulary::kMask);
      EXPECT_GE(pack.masked_targets[i], data::Vocabulary::kNumSpecial);
      EXPECT_LT(pack.masked_targets[i], 100);
    }
    EXPECT_TRUE(std::is_sorted(pack.masked_positions.begin(), pack.masked_positions.end()));
  }
  EXPECT_EQ(cells.size(), 20U);
  const GlobalBatch again = make_batch(problem);
  EXPECT_EQ(again.micro_batches[2].tokens, batch.micro_batches[2].tokens);
}

TEST(TrainProblem, AVocabularyWithoutGenesIsRefused) {
  const std::string text =
      test::message_of<ConfigError>([] { make_batch({.vocabulary = data::Vocabulary::kNumSpecial}); });
  EXPECT_CONTAINS(text, "--vocabulary");
}

TEST(KernelClasses, NamesThatTheProfilerGivesAreToldApart) {
  using enum KernelClass;
  const std::vector<std::pair<const char*, KernelClass>> cases{
      {"nvjet_sm90_tst_128x256_64x4_2x1_v_bz_coopA_bias_TNN", kProducts},
      {"void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_16x16_128x2_tn_align8>(...)",
       kProducts},
      {"void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>(...)", kProducts},
      {"void scrna::kernels::(anonymous namespace)::forward_kernel<scrna::kernels::sm90::ForwardTraits<64>>("
       "scrna::kernels::sm90::ForwardParams)",
       kAttention},
      {"void scrna::kernels::(anonymous namespace)::backward_kernel<T>(scrna::kernels::sm90::BackwardParams)",
       kAttention},
      {"scrna::kernels::(anonymous namespace)::plan_kernel(scrna::kernels::(anonymous "
       "namespace)::PlanParams)",
       kAttention},
      {"void scrna::kernels::(anonymous namespace)::round_kernel<T>(scrna::kernels::RoundParams)",
       kAttention},
      {"void flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<Flash_bwd_kernel_traits<64, 128, "
       "cutlass::bfloat16_t>>",
       kAttention},
      {"cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3i_128x128x64", kAttention},
      {"void scrna::kernels::(anonymous namespace)::forward_kernel<float, __nv_bfloat16>("
       "scrna::kernels::ResidualNormForward)",
       kNorm},
      {"void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>(...)", kNorm},
      {"void scrna::kernels::(anonymous namespace)::dropout_kernel<float>(scrna::kernels::Dropout)", kNorm},
      {"void scrna::kernels::(anonymous namespace)::backward_kernel<__nv_bfloat16>(scrna::kernels::BiasGelu, "
       "...)",
       kGelu},
      {"void at::native::vectorized_elementwise_kernel<4, "
       "at::native::GeluCUDAKernelImpl(at::TensorIteratorBase&)>",
       kGelu},
      {"void scrna::kernels::(anonymous namespace)::forward_kernel<T>(scrna::kernels::CrossEntropy, float*)",
       kLoss},
      {"void scrna::kernels::(anonymous namespace)::pieces_kernel<T>(scrna::kernels::EmbeddingBackward)",
       kEmbedding},
      {"scrna::kernels::(anonymous namespace)::gather_kernel(scrna::kernels::RowSelection, uint4 const*, "
       "uint4*)",
       kEmbedding},
      {"void at_cuda_detail::cub::DeviceRadixSortOnesweepKernel<...>", kEmbedding},
      {"scrna::kernels::(anonymous namespace)::column_sums_kernel(scrna::kernels::ColumnSums, long)",
       kBiasSums},
      {"void scrna::kernels::(anonymous namespace)::sum_kernel<__nv_bfloat16>(scrna::kernels::BiasGradient, "
       "float*)",
       kBiasSums},
      {"scrna::kernels::(anonymous namespace)::bias_gradient_kernel(scrna::kernels::Plan, float const*, "
       "float*)",
       kAttention},
      {"void scrna::kernels::(anonymous namespace)::probe_kernel<__nv_bfloat16>(scrna::kernels::ScoreProbe)",
       kProbe},
      {"scrna::kernels::(anonymous namespace)::row_squares_kernel(scrna::kernels::LayerNorms)", kOptimizer},
      {"scrna::kernels::(anonymous namespace)::layer_squares_kernel(scrna::kernels::LayerNorms)", kOptimizer},
      {"scrna::kernels::(anonymous namespace)::step_kernel(scrna::kernels::AdamWStep, "
       "scrna::kernels::StepFactors)",
       kOptimizer},
      {"void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, "
       "std::array<char*, 3ul>>",
       kAutogradSums},
      {"Memcpy HtoD (Pinned -> Device)", kCopies},
      {"Memset (Device)", kCopies},
      {"void at::native::vectorized_elementwise_kernel<4, at::native::FillFunctor<float>>", kCopies},
      {"void at::native::reduce_kernel<512, 1, at::native::MaxOps<float>>", kOther}};
  for (const auto& [name, expected] : cases)
    EXPECT_EQ(class_name(classify_kernel(name)), class_name(expected)) << name;
}

TEST(KernelClasses, TimesAreSummedPerStepAndOverlapIsBusyOnce) {
  // Two steps; a product of 2 ms under which 1 ms of copying runs on another stream, then 1 ms of nothing,
  // twice.
  const std::vector<DeviceEvent> events{{"nvjet_a", 0, 2'000'000},
                                        {"Memcpy HtoD", 500'000, 1'000'000},
                                        {"nvjet_a", 3'000'000, 2'000'000},
                                        {"Memcpy HtoD", 4'500'000, 1'000'000}};
  const Breakdown breakdown = break_down(events, 2);
  EXPECT_DOUBLE_EQ(breakdown.milliseconds.at(KernelClass::kProducts), 2.0);
  EXPECT_DOUBLE_EQ(breakdown.milliseconds.at(KernelClass::kCopies), 1.0);
  EXPECT_DOUBLE_EQ(breakdown.milliseconds.at(KernelClass::kAttention), 0.0);
  EXPECT_DOUBLE_EQ(breakdown.busy_milliseconds, (2.0 + 2.5) / 2);
  EXPECT_DOUBLE_EQ(breakdown.step_milliseconds, 5.5 / 2);
  EXPECT_DOUBLE_EQ(breakdown.idle_milliseconds(),
                   1.0 / 2);  // between the steps; before and behind them nothing counts
  ASSERT_EQ(breakdown.kernels.size(), 2U);
  EXPECT_EQ(breakdown.kernels[0].name, "nvjet_a");
  EXPECT_DOUBLE_EQ(breakdown.kernels[0].calls_per_step, 1.0);
}

TEST(KernelProfile, OnTheCpuTheWorkRunsAndTheProblemIsSaid) {
  bool ran = false;
  const DeviceProfile profile = profile_device(at::kCPU, [&] { ran = true; });
  EXPECT_TRUE(ran);
  EXPECT_TRUE(profile.events.empty());
  EXPECT_NE(profile.problem, "");
}

train::TrainConfig tiny(int64_t context) {
  train::TrainConfig config;
  config.model = {.num_layers = 2, .width = 32, .num_heads = 2, .feed_forward_width = 64, .dropout = 0.1};
  config.tokenizer.max_tokens = context;
  config.optim.warmup_steps = 0;
  config.optim.learning_rate = 1e-2;
  return config;
}

TEST(TrainBench, MeasuresStepsThatTrain) {
  const TrainBenchOptions options{
      .cells = 3, .context = 64, .vocabulary = 50, .steps = 6, .device = Device::kCpu};
  std::vector<std::string> parts;
  const TrainBenchResult result =
      bench_training(tiny(64), options, [&](std::string_view part) { parts.emplace_back(part); });
  EXPECT_EQ(result.step_milliseconds.size(), 6U);
  EXPECT_GE(result.median_milliseconds, *std::ranges::min_element(result.step_milliseconds));
  EXPECT_LE(result.median_milliseconds, *std::ranges::max_element(result.step_milliseconds));
  EXPECT_EQ(result.load.tokens, 3 * 64);
  EXPECT_EQ(result.flop, train::step_flop(tiny(64).model, 50, result.load));
  EXPECT_NEAR(result.first_loss, std::log(50), 0.3);
  EXPECT_LT(result.last_loss, 0.9 * result.first_loss);  // nine steps on the same cells at this learning rate
  EXPECT_NEAR(result.per_second(3) * result.median_milliseconds, 3000, 1e-6);
  EXPECT_GT(result.mfu(), 0);
  EXPECT_LT(result.mfu(), 1.5);
  EXPECT_FALSE(result.memory.has_value());
  EXPECT_GT(result.predicted_memory_bytes, 16 * result.parameters);
  EXPECT_GT(result.peak_resident_bytes, 10'000'000);
  EXPECT_FALSE(result.breakdown.has_value());
  EXPECT_NE(result.breakdown_problem, "");
  EXPECT_EQ(parts, (std::vector<std::string>{"making the model", "timing matrix products", "timing steps",
                                             "recording kernels"}));
}

TEST(TrainBench, AStepThatIsNotFiniteEndsIt) {
  train::TrainConfig config = tiny(64);
  config.optim.learning_rate = 1e30;
  const TrainBenchOptions options{
      .cells = 1, .context = 64, .vocabulary = 50, .steps = 6, .device = Device::kCpu};
  EXPECT_THROW(bench_training(config, options, [](std::string_view) {}), NumericError);
}

}  // namespace
}  // namespace scrna::bench
