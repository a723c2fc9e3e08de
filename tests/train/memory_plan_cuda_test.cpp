// The plan of a step's memory beside what the allocator measured on a GPU: within 10 %, for every way to keep
// activations and both kinds of attention. Skipped without a GPU.
#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/model/encoder.h"
#include "lib/optim/adamw.h"
#include "lib/train/device_memory.h"
#include "lib/train/matrix_ceiling.h"
#include "lib/train/memory_advice.h"
#include "lib/train/memory_plan.h"
#include "lib/train/step.h"
#include "tests/support/packed_cells.h"

namespace scrna::train {
namespace {

constexpr double kAgreement = 0.1;  // what `--check` promises

class MemoryOnGpu : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA()) GTEST_SKIP() << "skipped: no CUDA device";
  }
};

GlobalBatch cells(int32_t num_cells, int32_t tokens) {
  std::vector<std::pair<uint64_t, int32_t>> lengths;
  for (int32_t cell = 0; cell < num_cells; ++cell) lengths.emplace_back(static_cast<uint64_t>(cell), tokens);
  return test::batch_of(0, {test::pack(lengths)});
}

// Two steps, then the peak; everything is freed on return.
int64_t measured_peak(const TrainConfig& config, const GlobalBatch& batch, int64_t vocabulary,
                      int64_t& buffer_elements) {
  reset_peak_memory(at::kCUDA);
  model::Encoder encoder(config.model, vocabulary, config.tokenizer.max_tokens, 1, at::kCUDA, at::kBFloat16);
  optim::AdamW optimizer(encoder.parameters(), config.optim);
  TrainStep step(encoder, optimizer, config);
  buffer_elements = encoder.parameters().values().numel();
  step(batch);
  step(batch);
  return peak_memory_bytes(at::kCUDA);
}

TEST_F(MemoryOnGpu, ThePlanIsWithinTenPercentOfThePeak) {
  constexpr int64_t kVocabulary = 20000;
  measure_matrix_ceiling(at::kCUDA, at::kBFloat16,
                         0.001);  // the allocator is there, cuBLAS has its workspace
  const GlobalBatch batch = cells(32, 1024);
  using enum model::Attention;
  using enum model::ResidualPrecision;
  for (const auto& [attention, residual] :
       {std::pair(kSigmoid, kFp32), std::pair(kSigmoid, kBf16), std::pair(kSoftmax, kFp32)}) {
    for (const auto& [name, recompute] : model::enum_names(model::Recompute{})) {
      TrainConfig config;
      config.model = {.attention = attention,
                      .num_layers = 6,
                      .width = 512,
                      .num_heads = 8,
                      .feed_forward_width = 2048,
                      .residual_precision = residual};
      config.tokenizer.max_tokens = 1024;
      config.train.recompute = recompute;
      int64_t buffer_elements = 0;
      const auto measured = static_cast<double>(measured_peak(config, batch, kVocabulary, buffer_elements));
      const MemoryPlan plan = plan_memory({.model = config.model,
                                           .vocabulary_size = kVocabulary,
                                           .buffer_elements = buffer_elements,
                                           .compute_type = at::kBFloat16,
                                           .recompute = recompute,
                                           .tokens = batch.num_tokens,
                                           .masked_tokens = batch.num_masked,
                                           .cells = batch.num_cells,
                                           .is_monitored = config.monitor.every_steps > 0});
      EXPECT_NEAR(static_cast<double>(plan.total_bytes()), measured, kAgreement * measured)
          << name << (attention == kSigmoid ? ", sigmoid" : ", softmax")
          << (residual == kBf16 ? ", bf16 residual" : "") << ", most at: " << plan.moment;
      RecordProperty(std::string(name) + (attention == kSigmoid ? "_sigmoid" : "_softmax") +
                         (residual == kBf16 ? "_bf16_residual" : ""),
                     fmt::format("planned {:.3f} GB, measured {:.3f} GB",
                                 static_cast<double>(plan.total_bytes()) / 1e9, measured / 1e9));
    }
  }
}

TEST_F(MemoryOnGpu, AFullGpuEndsInADeviceErrorThatNamesSettings) {
  TrainConfig config;
  EXPECT_THROW(with_memory_advice(config,
                                  [] {
                                    // More than any device has: the allocator refuses.
                                    at::empty({int64_t{1} << 45},
                                              at::TensorOptions(at::kCUDA).dtype(at::kByte));
                                  }),
               DeviceError);
}

}  // namespace
}  // namespace scrna::train
