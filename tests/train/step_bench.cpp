// Not a test: milliseconds and memory of the training step on a GPU, on synthetic cells with random tokens.
//
//   step_bench [--cells N] [--tokens N] [--layers L] [--attention sigmoid|softmax] [--recompute NAME]
//   [--probe N]
//              [--steps N] [--trace FILE]
//
// Without --tokens, lengths are those of CELLxGENE: log2-normal(10.75, 1.25) clipped to 200 ... 8,192; of 32
// cells the first draw that has 65,287 tokens within 100 and a sum of squared lengths within 2 % of 2.09e8,
// which is what the table of other programs was measured on. --trace writes what LibTorch's profiler saw of
// three steps, for chrome://tracing.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numbers>
#include <string>
#include <vector>

#include <c10/cuda/CUDACachingAllocator.h>
#include <cuda_runtime_api.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include "lib/core/clock.h"
#include "lib/core/random.h"
#include "lib/train/step.h"

namespace scrna::train {
namespace {

constexpr int32_t kGenes = 43804;
constexpr int64_t kMaxTokens = 8192;

struct Options {
  int64_t cells = 32, tokens = 0, layers = 12, probe = 0, steps = 10;
  model::Attention attention = model::Attention::kSigmoid;
  model::Recompute recompute = model::Recompute::kNone;
  std::string trace;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i], value = argv[i + 1];
    if (name == "--cells") options.cells = std::stoll(value);
    if (name == "--tokens") options.tokens = std::stoll(value);
    if (name == "--layers") options.layers = std::stoll(value);
    if (name == "--probe") options.probe = std::stoll(value);
    if (name == "--steps") options.steps = std::stoll(value);
    if (name == "--trace") options.trace = value;
    if (name == "--attention" && value == "softmax") options.attention = model::Attention::kSoftmax;
    for (const auto& [word, recompute] : model::enum_names(model::Recompute{}))
      if (name == "--recompute" && value == word) options.recompute = recompute;
  }
  return options;
}

std::vector<int32_t> drawn_lengths(const Options& options, uint64_t seed) {
  const RandomStream stream(seed, RandomPurpose::kInit);
  std::vector<int32_t> lengths;
  for (uint64_t cell = 0; cell < static_cast<uint64_t>(options.cells); ++cell) {
    const double normal = std::sqrt(-2 * std::log(stream.uniform(2 * cell) + 1e-12)) *
                          std::cos(2 * std::numbers::pi * stream.uniform(2 * cell + 1));
    lengths.push_back(
        static_cast<int32_t>(std::clamp(std::exp2(10.75 + 1.25 * normal), 200.0, double{kMaxTokens})));
  }
  return lengths;
}

std::vector<int32_t> lengths_of(const Options& options) {
  if (options.tokens > 0)
    return std::vector<int32_t>(static_cast<std::size_t>(options.cells),
                                static_cast<int32_t>(options.tokens));
  for (uint64_t seed = 1; options.cells == 32; ++seed) {
    const std::vector<int32_t> lengths = drawn_lengths(options, seed);
    double sum = 0, squares = 0;
    for (const double length : lengths) sum += length, squares += length * length;
    if (std::abs(sum - 65287) <= 100 && std::abs(squares / 2.09e8 - 1) < 0.02) return lengths;
  }
  return drawn_lengths(options, 1);
}

GlobalBatch random_batch(const Options& options) {
  const RandomStream stream(1, RandomPurpose::kMask);
  PackedMicroBatch pack;
  pack.cu_seqlens.push_back(0);
  for (const int32_t length : lengths_of(options)) {
    for (int32_t rank = 0; rank < length; ++rank) {
      const uint64_t index = pack.tokens.size();
      const auto token = static_cast<int32_t>(stream.below(kGenes, 2 * index));
      if (stream.below(100, 2 * index + 1) < 15) {
        pack.masked_positions.push_back(static_cast<int32_t>(index));
        pack.masked_targets.push_back(token);
      }
      pack.tokens.push_back(token);
      pack.ranks.push_back(rank);
    }
    pack.cu_seqlens.push_back(static_cast<int32_t>(pack.tokens.size()));
    pack.cell_ids.push_back(pack.cell_ids.size());
    pack.max_cell_tokens = std::max(pack.max_cell_tokens, length);
  }
  GlobalBatch batch{
      .num_cells = pack.num_cells(), .num_tokens = pack.num_tokens(), .num_masked = pack.num_masked()};
  batch.micro_batches.push_back(std::move(pack));
  return batch;
}

// As many steps, one in flight. Returns the last report.
StepReport repeat(TrainStep& step, DeviceBatch& batch, int64_t count) {
  std::vector<PendingStep> pending;
  StepReport report;
  for (int64_t i = 0; i < count; ++i, ++batch.step) {
    pending.push_back(step.launch(batch));
    if (pending.size() > 1) {
      report = pending.front().wait();
      pending.erase(pending.begin());
    }
  }
  return pending.front().wait();
}

void run(const Options& options) {
  TrainConfig config;
  config.model.num_layers = options.layers;
  config.model.attention = options.attention;
  config.train.recompute = options.recompute;
  config.train.probe_queries = options.probe;
  config.optim.clip_norm = 1.0;
  model::Encoder encoder(config.model, kGenes, kMaxTokens, 1, at::kCUDA, at::kBFloat16);
  optim::AdamW optimizer(encoder.parameters(), config.optim);
  TrainStep step(encoder, optimizer, config);
  const GlobalBatch cells = random_batch(options);
  DeviceBatch batch = to_device(cells, at::kCUDA);
  repeat(step, batch, 3);
  c10::cuda::CUDACachingAllocator::resetPeakStats(0);
  const double start = now_seconds();
  const StepReport last = repeat(step, batch, options.steps);
  const double seconds = (now_seconds() - start) / static_cast<double>(options.steps);
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(0);
  const double launch_start = now_seconds();
  const PendingStep one = step.launch(batch);
  const double launch_seconds = now_seconds() - launch_start;
  static_cast<void>(one.wait());
  double squares = 0;
  const std::vector<int32_t>& begins = cells.micro_batches[0].cu_seqlens;
  for (std::size_t i = 1; i < begins.size(); ++i) squares += std::pow(begins[i] - begins[i - 1], 2);
  const double layers = static_cast<double>(options.layers);
  const double flops =
      3 * (2 * 7077888 * layers * static_cast<double>(cells.num_tokens) + 4 * 768 * layers * squares +
           2 * 768.0 * kGenes * static_cast<double>(cells.num_masked));
  std::printf(
      "%lld cells, %lld tokens, %lld masked: %.2f ms per step (forward %.2f, backward %.2f, optimizer %.2f; "
      "host %.2f), "
      "%.1f cells/s, %.0f TFLOP/s, peak %.2f GB allocated, %.2f GB reserved, loss %.4f\n",
      static_cast<long long>(cells.num_cells), static_cast<long long>(cells.num_tokens),
      static_cast<long long>(cells.num_masked), 1e3 * seconds, 1e3 * last.seconds.forward,
      1e3 * last.seconds.backward, 1e3 * last.seconds.optimizer, 1e3 * launch_seconds,
      static_cast<double>(cells.num_cells) / seconds, 1e-12 * flops / seconds,
      1e-9 * static_cast<double>(stats.allocated_bytes[0].peak),
      1e-9 * static_cast<double>(stats.reserved_bytes[0].peak), last.loss);
  std::fflush(stdout);
  if (options.trace.empty()) return;
  namespace profiler = torch::autograd::profiler;
  using torch::profiler::impl::ActivityType;
  const profiler::ProfilerConfig settings(profiler::ProfilerState::KINETO);
  const std::set<ActivityType> activities{ActivityType::CPU, ActivityType::CUDA};
  profiler::prepareProfiler(settings, activities);
  profiler::enableProfiler(settings, activities);
  repeat(step, batch, 3);
  cudaDeviceSynchronize();
  profiler::disableProfiler()->save(options.trace);
}

}  // namespace
}  // namespace scrna::train

int main(int argc, char** argv) { scrna::train::run(scrna::train::parse(argc, argv)); }
