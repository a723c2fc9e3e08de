#include "lib/train/prepared_run.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"
#include "lib/data/build_vocabulary.h"
#include "lib/data/cell_source.h"
#include "lib/ops/residual_norm.h"
#include "lib/train/flops.h"
#include "lib/train/gradient_reducer.h"

namespace scrna::train {
namespace {

// fp32 value, gradient, AdamW's two moments; and a copy of the values where products are bf16.
double model_bytes(const PreparedRun& run) {
  const double bytes_per_value = run.compute_type == at::kFloat ? 8 : 10;
  return bytes_per_value * static_cast<double>(run.encoder->parameters().values().numel()) +
         8 * static_cast<double>(run.optimizer->mean().numel());
}

// Shows the passes over the cells, and ends them when a signal asks to stop.
data::Progress show_passes() {
  auto bars = std::make_shared<PhaseProgress>("cells");
  return [bars](std::string_view phase, int64_t cells, int64_t total_cells) {
    if (const int signal = stop_signal(); signal != 0) {
      throw Interrupted("stopped by signal {} before the first step; nothing was written", signal);
    }
    (*bars)(phase, cells, total_cells);
    if (cells == total_cells) bars->finish();
  };
}

data::Vocabulary make_vocabulary(const std::vector<data::CellSource>& sources, const TrainConfig& config,
                                 const data::Progress& progress) {
  data::Vocabulary vocabulary = data::build_vocabulary(sources, config.data.vocabulary_min_cells, progress);
  log::info("[data] vocabulary: {} genes, built from the data (expressed by at least {} cell(s))",
            vocabulary.genes().size(), config.data.vocabulary_min_cells);
  return vocabulary;
}

std::unique_ptr<data::Corpus> open_corpus(const TrainConfig& config, std::filesystem::path vocabulary_file,
                                          const data::Vocabulary* given) {
  const data::Progress progress = show_passes();
  if (vocabulary_file.empty()) vocabulary_file = config.data.vocabulary;
  std::unique_ptr<data::Vocabulary> vocabulary;
  if (given != nullptr) {
    vocabulary = std::make_unique<data::Vocabulary>(*given);
  } else if (!vocabulary_file.empty()) {
    vocabulary = std::make_unique<data::Vocabulary>(data::Vocabulary::load(vocabulary_file));
    log::info("[data] vocabulary: {} genes from {}", vocabulary->genes().size(), vocabulary_file.string());
  }
  std::vector<data::CellSource> sources = data::open_sources(config.data, vocabulary.get());
  if (!vocabulary) vocabulary = std::make_unique<data::Vocabulary>(make_vocabulary(sources, config, progress));
  return std::make_unique<data::Corpus>(std::move(sources), std::move(*vocabulary), config.data, config.tokenizer,
                                        progress);
}

// Widths that the fused operations have no kernel for: many times slower, so nobody should find out by accident.
void warn_of_slow_shapes(const model::ModelConfig& config) {
  constexpr const char* kWhat =
      "run as LibTorch operations on this GPU, which are slower and take memory that the memory plan does not count";
  if (config.width % 8 != 0 || config.width > ops::kMaxFusedNormWidth) {
    log::warning("[model] model.width = {}: there are kernels for multiples of 8 up to {}; LayerNorm, dropout and residuals {}",
                 config.width, grouped(ops::kMaxFusedNormWidth), kWhat);
  }
  if (config.feed_forward_width % 8 != 0) {
    log::warning("[model] model.feed_forward_width = {}: there are kernels for multiples of 8; bias and GELU {}",
                 config.feed_forward_width, kWhat);
  }
}

void log_cells(const data::Corpus& corpus, const TrainConfig& config) {
  const auto steps_per_epoch = static_cast<double>(corpus.num_training_cells()) /
                               static_cast<double>(config.train.global_batch_cells);
  log::info("[data] {} cells to train on, {} held out; {} steps of {} cells are {:.2f} epochs; no cell has more than {} tokens",
            corpus.num_training_cells(), corpus.num_heldout_cells(), config.train.steps,
            config.train.global_batch_cells, static_cast<double>(config.train.steps) / steps_per_epoch,
            corpus.longest_cell_tokens());
  if (corpus.num_training_cells() < config.train.global_batch_cells) {
    log::warning("[data] train.global_batch_cells = {} exceeds the {} training cells: a step sees some cells twice",
                 config.train.global_batch_cells, corpus.num_training_cells());
  }
}

// What the largest step will take, before it does.
void tell_memory(const TrainConfig& config, const PreparedRun& run) {
  const MemoryProblem problem = memory_problem_of(config, run);
  const MemoryPlan plan = plan_memory(problem);
  const DeviceMemory memory = device_memory(run.device);
  log::info("[memory] a step {}; {:.1f} GB of {:.1f} GB are free", plan_words(plan, problem.tokens),
            static_cast<double>(memory.free_bytes) / 1e9, static_cast<double>(memory.total_bytes) / 1e9);
  const std::string warning = shortage(plan, memory, config, run.num_ranks);
  if (!warning.empty()) log::warning("[memory] {}", warning);
}

}  // namespace

at::Device choose_device(DeviceChoice choice, const dist::World& world) {
  const auto num_gpus = static_cast<int64_t>(at::hasCUDA() ? at::detail::getCUDAHooks().deviceCount() : 0);
  if (choice == DeviceChoice::kCuda && num_gpus == 0) {
    throw DeviceError(
        "train.device: cuda, but there is no usable GPU: no NVIDIA driver or GPU was found, or the program "
        "was built "
        "without device code (scrna-train --version tells). Set train.device to cpu, or see README.md on "
        "CUDA");
  }
  if (choice == DeviceChoice::kCpu || num_gpus == 0) return at::kCPU;
  // A launcher may show each process its own GPU only; whether it is its own is found out when the ranks
  // meet.
  const int64_t index =
      num_gpus == 1 && std::getenv("CUDA_VISIBLE_DEVICES") != nullptr ? 0 : world.local_rank;
  if (index >= num_gpus) {
    throw DeviceError(
        "rank {} is the {}. process of this machine (LOCAL_RANK={}), but {} GPU(s) can be seen: one process "
        "trains on one "
        "GPU. Start at most {} here (--nproc-per-node {}), check CUDA_VISIBLE_DEVICES, or set train.device "
        "to cpu",
        world.rank, world.local_rank + 1, world.local_rank, num_gpus, num_gpus, num_gpus);
  }
  const at::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
  c10::impl::VirtualGuardImpl(at::kCUDA).setDevice(device);
  return device;
}

std::string short_count(double count) {
  constexpr std::array kUnits = {"", " k", " M", " G", " T"};
  std::size_t unit = 0;
  while (count >= 1000 && unit + 1 < kUnits.size()) count /= 1000, ++unit;
  return fmt::format("{:.{}f}{}", count, unit == 0 ? 0 : count < 10 ? 2 : count < 100 ? 1 : 0, kUnits[unit]);
}

data::LoaderOptions loader_options(const TrainConfig& config, int64_t first_step,
                                   const dist::Communicator& communicator, int64_t vocabulary_size) {
  data::LoaderOptions options =
      data::loader_options(config.data, config.masking, config.train.seed, config.train.global_batch_cells);
  options.first_step = first_step;
  options.rank = communicator.rank();
  options.num_ranks = communicator.num_ranks();
  options.squared_length_weight =
      squared_length_weight(config.model, vocabulary_size, config.masking.fraction);
  return options;
}

at::ScalarType choose_compute_type(Precision precision, at::Device device) {
  if (precision == Precision::kAuto) return device.is_cuda() ? at::kBFloat16 : at::kFloat;
  return precision == Precision::kBf16 ? at::kBFloat16 : at::kFloat;
}

MemoryProblem memory_problem_of(const TrainConfig& config, const PreparedRun& run) {
  const at::Device gpu = run.device.is_cpu() ? at::Device(at::kCUDA) : run.device;
  MemoryProblem problem = memory_problem(
      config, run.encoder->vocabulary_size(), run.encoder->parameters().values().numel(),
      choose_compute_type(config.train.precision, gpu), run.corpus->longest_cell_tokens(),
      run.corpus->mean_cell_tokens());
  problem.moment_elements = run.optimizer->mean().numel();
  problem.num_ranks = run.num_ranks;
  problem.step_tokens /= std::max<int64_t>(1, run.num_ranks);
  return problem;
}

PreparedRun prepare(const TrainConfig& config, const std::filesystem::path& vocabulary, at::Device device,
                    dist::Communicator& communicator, const data::Vocabulary* given) {
  if (config.train.num_threads > 0) at::set_num_threads(static_cast<int>(config.train.num_threads));
  PreparedRun run;
  run.device = device;
  run.num_ranks = communicator.is_connected() ? communicator.num_ranks() : 0;
  run.compute_type = choose_compute_type(config.train.precision, run.device);
  run.corpus = open_corpus(config, vocabulary, given);
  log_cells(*run.corpus, config);
  run.encoder = std::make_unique<model::Encoder>(config.model, run.corpus->vocabulary().size(),
                                                 config.tokenizer.max_tokens, config.train.seed, run.device, run.compute_type);
  const ops::ParameterSet& parameters = run.encoder->parameters();
  if (config.dist.shard_optimizer && communicator.is_connected()) {
    run.shards = std::make_unique<dist::Shards>(
        communicator, gradient_buckets_of(*run.encoder, config.dist).buckets, ops::kParameterAlignment);
  }
  run.optimizer =
      std::make_unique<optim::AdamW>(run.encoder->parameters(), config.optim,
                                     run.shards ? run.shards->own() : std::vector<ElementRange>());
  if (run.device.is_cuda()) warn_of_slow_shapes(config.model);
  log::info("[model] {} parameters ({} layers x {}, {} heads, {} tokens in the vocabulary); weights, gradients and "
            "AdamW take {}B",
            short_count(static_cast<double>(parameters.num_elements())), config.model.num_layers, config.model.width,
            config.model.num_heads, run.corpus->vocabulary().size(),
            short_count(model_bytes(run)));
  log::info("[model] {} on {}, {}", run.encoder->describe_attention(), run.device.str(),
            run.compute_type == at::kBFloat16 ? "bf16 products, fp32 weights" : "fp32");
  if (!run.device.is_cpu()) tell_memory(config, run);
  return run;
}

}  // namespace scrna::train
