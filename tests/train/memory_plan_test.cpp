// The plan of a step's memory against sums worked out by hand, and what it says when memory is short.
#include "lib/train/memory_plan.h"

#include <string>

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/train/memory_advice.h"
#include "tests/support/expect_error.h"

namespace scrna::train {
namespace {

using enum MemoryPart;

/// The 160M encoder with 43,804 tokens and 8,192 rank positions, about, at the load of 32 CELLxGENE cells.
MemoryProblem paper(model::Recompute recompute = model::Recompute::kNone) {
  return {.model = {.num_layers = 12, .width = 768, .num_heads = 12, .feed_forward_width = 3072},
          .vocabulary_size = 43804,
          .buffer_elements = 158'800'000,
          .compute_type = at::kBFloat16,
          .recompute = recompute,
          .tokens = 65287,
          .masked_tokens = 9793,
          .cells = 32};
}

int64_t layers_bytes(const MemoryProblem& problem, int64_t per_token) {
  return problem.model.num_layers * problem.tokens * per_token;
}

TEST(MemoryPlan, WeightsGradientsAndMomentsTakeEighteenBytesAParameter) {
  const MemoryPlan plan = plan_memory(paper());
  const int64_t elements = paper().buffer_elements;
  EXPECT_EQ(plan.part(kWeights), 4 * elements);
  EXPECT_EQ(plan.part(kGradients), 4 * elements);
  EXPECT_EQ(plan.part(kMoments), 8 * elements);
  EXPECT_EQ(plan.part(kComputeCopy), 2 * elements);
}

TEST(MemoryPlan, InFp32ThereIsNoCopyOfTheWeights) {
  MemoryProblem problem = paper();
  problem.compute_type = at::kFloat;
  EXPECT_EQ(plan_memory(problem).part(kComputeCopy), 0);
  EXPECT_GT(plan_memory(problem).part(kActivations), plan_memory(paper()).part(kActivations) * 3 / 2);
}

TEST(MemoryPlan, ActivationsAreTwentyDAndFourFATokenAndLayer) {
  const MemoryProblem problem = paper();
  const MemoryPlan plan = plan_memory(problem);
  const int64_t per_token =
      20 * problem.model.width + 4 * problem.model.feed_forward_width + 16;  // and statistics
  // The first block's h is the embedding, the last LayerNorm has one h more; at the peak the last block's are
  // going.
  EXPECT_NEAR(static_cast<double>(plan.part(kActivations)),
              static_cast<double>(layers_bytes(problem, per_token)),
              static_cast<double>(layers_bytes(problem, per_token)) / 12);
  EXPECT_LT(plan.total_bytes(), 28'000'000'000);
  EXPECT_GT(plan.total_bytes(), 24'000'000'000);
  EXPECT_NE(plan.moment, "");
}

TEST(MemoryPlan, RecomputationSavesTheFeedForwardOrWholeBlocks) {
  const MemoryPlan none = plan_memory(paper());
  const MemoryPlan feed_forward = plan_memory(paper(model::Recompute::kFeedForward));
  const MemoryPlan block = plan_memory(paper(model::Recompute::kBlock));
  const int64_t inner = layers_bytes(paper(), 4 * paper().model.feed_forward_width);
  EXPECT_NEAR(static_cast<double>(none.part(kActivations) - feed_forward.part(kActivations)),
              static_cast<double>(inner), static_cast<double>(inner) / 12);
  // 6 D a token and layer, h and the branch before it, and the embedding's h once
  EXPECT_NEAR(static_cast<double>(block.part(kActivations)),
              static_cast<double>(layers_bytes(paper(), 6 * 768)),
              static_cast<double>(layers_bytes(paper(), 6 * 768)) / 6);
  EXPECT_LT(feed_forward.total_bytes(), none.total_bytes());
  EXPECT_LT(block.total_bytes(), feed_forward.total_bytes() * 2 / 3);
}

TEST(MemoryPlan, TheHeadHoldsOneChunkOfLogits) {
  MemoryProblem few = paper(), many = paper();
  few.model.num_layers = many.model.num_layers = 1;
  few.model.width = many.model.width = 8;
  few.model.num_heads = many.model.num_heads = 1;
  few.model.feed_forward_width = many.model.feed_forward_width = 8;
  few.masked_tokens = 64;
  // Of so small a model the head is the peak: 64 against 4,096 rows of 43,840 columns in bf16, 16 bytes of
  // ids and two rows of width 8 for each masked token.
  const int64_t difference = plan_memory(many).total_bytes() - plan_memory(few).total_bytes();
  EXPECT_EQ(plan_memory(many).moment, "head");
  const int64_t logits = (4096 - 64) * int64_t{43840} * 2;
  EXPECT_NEAR(static_cast<double>(difference), static_cast<double>(logits),
              0.02 * static_cast<double>(logits));
}

TEST(MemoryPlan, GrowsWithTokensAndNeverWithFewer) {
  int64_t before = 0;
  for (const int64_t tokens : {1, 1000, 4096, 65536, 131072}) {
    MemoryProblem problem = paper();
    problem.tokens = tokens;
    problem.masked_tokens = tokens / 7;
    const int64_t bytes = plan_memory(problem).total_bytes();
    EXPECT_GT(bytes, before) << tokens;
    before = bytes;
  }
}

TEST(MemoryPlan, TheLargestPassIsTheBudgetOrOneLongerCellButNoMoreThanTheStep) {
  TrainConfig config;
  config.data.tokens_per_micro_batch = 16384;
  config.tokenizer.max_tokens = 2048;
  config.train.global_batch_cells = 256;
  const auto tokens = [&](int64_t longest) {
    return memory_problem(config, 100, 1000, at::kFloat, longest).tokens;
  };
  EXPECT_EQ(tokens(1000), 16384);
  EXPECT_EQ(tokens(100000), 16384);  // truncated to max_tokens
  config.data.tokens_per_micro_batch = 512;
  EXPECT_EQ(tokens(1000), 1000);
  config.data.tokens_per_micro_batch = 16384;
  config.train.global_batch_cells = 4;
  EXPECT_EQ(tokens(1000), 4000);
  EXPECT_EQ(memory_problem(config, 100, 1000, at::kFloat, 1000).masked_tokens, 600);
}

TEST(MemoryPlan, InWordsItSaysTheSumAndItsLargestParts) {
  MemoryPlan plan;
  plan.bytes = {1'000'000'000,  500'000'000, 1'000'000'000, 2'000'000'000,
                20'000'000'000, 300'000'000, 0,             200'000'000};
  EXPECT_EQ(plan_words(plan, 65536),
            "needs 25.0 GB at 65,536 tokens a forward pass: 4.5 weights, gradients and AdamW, 20.0 "
            "activations, 0.5 the "
            "rest");
  plan.nccl_bytes = 500'000'000;
  EXPECT_CONTAINS(plan_words(plan, 65536), "0.5 the rest; and 0.5 GB for NCCL");
}

TEST(MemoryPlan, AShardedOptimizerKeepsTheMomentsOfItsPart) {
  MemoryProblem problem = paper();
  problem.num_ranks = 8;
  problem.moment_elements = 20'000'000;
  EXPECT_EQ(plan_memory(problem).part(kMoments), 2 * 4 * 20'000'000);
  EXPECT_EQ(plan_memory(paper()).total_bytes() - plan_memory(problem).total_bytes(),
            8 * (paper().buffer_elements - 20'000'000));
}

// The model's gradients are all on their way at the end, its activations gone; what counts is the sum at its peak.
TEST(MemoryPlan, GradientsSentInBf16AreCountedWhereTheyMeetActivations) {
  MemoryProblem problem = paper();
  problem.num_ranks = 2;
  const MemoryPlan fp32 = plan_memory(problem);
  EXPECT_EQ(fp32.part(kSums), 0);
  EXPECT_EQ(fp32.total_bytes(), plan_memory(paper()).total_bytes()) << "fp32 is summed in place";
  EXPECT_GT(fp32.nccl_bytes, 0);
  EXPECT_EQ(plan_memory(paper()).nccl_bytes, 0);
  problem.gradient_type = dist::GradientType::kBf16;
  const MemoryPlan many = plan_memory(problem);
  EXPECT_GE(many.total_bytes(), fp32.total_bytes() + 2 * 43804 * 768) << "the head's leave before the blocks'";
  EXPECT_LT(many.total_bytes(), fp32.total_bytes() + 2 * paper().buffer_elements);
  problem.tokens = 100;  // hardly any activations: the peak is where all gradients have left
  problem.masked_tokens = 15;
  problem.cells = 1;
  const MemoryPlan few = plan_memory(problem);
  EXPECT_EQ(few.part(kSums), 2 * paper().buffer_elements);
  EXPECT_EQ(few.moment, "last gradients on their way");
}

// It is there when the activations are gone, so it counts where they are smaller than the weights.
TEST(MemoryPlan, AMonitoredStepsCopyOfTheWeightsCountsWhereActivationsAreFew) {
  MemoryProblem problem = paper();
  const int64_t unmonitored = plan_memory(problem).total_bytes();
  problem.is_monitored = true;
  EXPECT_EQ(plan_memory(problem).total_bytes(), unmonitored) << "activations are larger than the copy";
  problem.tokens = 512;
  problem.masked_tokens = 77;
  problem.cells = 1;
  const MemoryPlan plan = plan_memory(problem);
  EXPECT_EQ(plan.moment, "update, monitored: weights before it");
  EXPECT_EQ(plan.part(kTransient), 4 * problem.buffer_elements);
  EXPECT_EQ(plan.part(kActivations), 0);
  problem.num_ranks = 2;  // bf16 copies of the gradients are given back before
  problem.gradient_type = dist::GradientType::kBf16;
  EXPECT_EQ(plan_memory(problem).total_bytes(), plan.total_bytes());
  problem.is_monitored = false;
  EXPECT_LT(plan_memory(problem).total_bytes(), plan.total_bytes());

  TrainConfig config;
  EXPECT_TRUE(memory_problem(config, 100, 1000, at::kFloat, 1000).is_monitored);
  config.monitor.every_steps = 0;
  EXPECT_FALSE(memory_problem(config, 100, 1000, at::kFloat, 1000).is_monitored);
}

TEST(MemoryPlan, AShortageNamesTheSettingsAndTheirValues) {
  const MemoryPlan plan = plan_memory(paper());
  TrainConfig config;
  config.data.tokens_per_micro_batch = 65536;
  const int64_t there = 18 * paper().buffer_elements;  // the model's buffers
  const DeviceMemory large{.allocated_bytes = there, .reserved_bytes = there, .free_bytes = 100'000'000'000};
  EXPECT_EQ(shortage(plan, large, config), "");
  const DeviceMemory small{.allocated_bytes = there,
                           .reserved_bytes = there,
                           .free_bytes = 10'000'000'000,
                           .total_bytes = 16'000'000'000};
  const std::string text = shortage(plan, small, config);
  EXPECT_EQ(text.find("dist.shard_optimizer"), std::string::npos) << text;
  EXPECT_CONTAINS(shortage(plan, small, config, 2), "set dist.shard_optimizer to true");
  config.dist.shard_optimizer = true;
  EXPECT_EQ(shortage(plan, small, config, 2).find("dist.shard_optimizer"), std::string::npos);
  for (const char* part : {"10.0 GB of 16.0 GB are free", "data.tokens_per_micro_batch (65536)",
                           "train.recompute (none)", "tokenizer.max_tokens (2048:"})
    EXPECT_CONTAINS(text, part);
}

TEST(MemoryAdvice, AFullGpuIsADeviceErrorThatNamesSettingsOnceAndOnlyThoseThatHelp) {
  TrainConfig config;
  config.data.tokens_per_micro_batch = 65536;
  const auto full = [] {
    throw c10::OutOfMemoryError({"f", "a.cpp", 1},
                                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
                                "capacity of 139.80 GiB of which 1.00 GiB is free. Including ...");
  };
  const std::string text = test::message_of<DeviceError>([&] { with_memory_advice(config, full); });
  for (const char* part :
       {"lower data.tokens_per_micro_batch (65536)", "train.recompute", "Tried to allocate 2.00 GiB"})
    EXPECT_CONTAINS(text, part);
  EXPECT_EQ(text.find("Including"), std::string::npos) << text;
  config.data.tokens_per_micro_batch = 1024;  // below one cell of 2,048 tokens: lowering it changes nothing
  config.train.recompute = model::Recompute::kBlock;
  const std::string other = test::message_of<DeviceError>([&] { with_memory_advice(config, full); });
  EXPECT_EQ(other.find("tokens_per_micro_batch"), std::string::npos) << other;
  EXPECT_EQ(other.find("recompute"), std::string::npos) << other;
  EXPECT_CONTAINS(other, "tokenizer.max_tokens (2048");
}

TEST(MemoryAdvice, OtherErrorsPassAsTheyAre) {
  EXPECT_THROW(with_memory_advice({}, [] { throw DataError("a file"); }), DataError);
  EXPECT_THROW(with_memory_advice({}, [] { TORCH_CHECK(false, "shapes"); }), c10::Error);
  bool ran = false;
  with_memory_advice({}, [&] { ran = true; });
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace scrna::train
