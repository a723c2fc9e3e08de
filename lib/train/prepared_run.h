// Everything a run needs before its first step, made in the order in which mistakes are cheapest to find: device, files,
// vocabulary, cells, model, optimizer. Nothing is written here.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include "lib/data/corpus.h"
#include "lib/data/loader.h"
#include "lib/dist/communicator.h"
#include "lib/dist/shards.h"
#include "lib/model/encoder.h"
#include "lib/optim/adamw.h"
#include "lib/train/memory_plan.h"
#include "lib/train/train_config.h"

namespace scrna::train {

struct PreparedRun {
  at::Device device = at::kCPU;
  at::ScalarType compute_type = at::kFloat;
  int64_t num_ranks = 0;  // that are connected; 0: this process is alone
  std::unique_ptr<data::Corpus> corpus;
  std::unique_ptr<model::Encoder> encoder;
  std::unique_ptr<dist::Shards> shards;  // what the optimizer owns; null: everything
  std::unique_ptr<optim::AdamW> optimizer;
};

/// Where this rank trains: the GPU of its number among the ranks of its machine, or the only one that the
/// launcher shows it; or the CPU. That GPU becomes the current one. Throws DeviceError when `choice` cannot
/// be had, or the machine shows fewer GPUs than it runs ranks.
at::Device choose_device(DeviceChoice choice, const dist::World& world);

/// `vocabulary`: the file to take instead of data.vocabulary (a resumed run has one); empty: as the
/// configuration says. `given`: a vocabulary to take instead of either. Logs what was chosen and shows progress.
/// Throws ConfigError, DataError; Interrupted when a stop signal arrives meanwhile. Says nothing to the other ranks;
/// the communicator must outlive the result.
PreparedRun prepare(const TrainConfig& config, const std::filesystem::path& vocabulary, at::Device device,
                    dist::Communicator& communicator, const data::Vocabulary* given = nullptr);

/// The type of matrix products and attention on that device.
at::ScalarType choose_compute_type(Precision precision, at::Device device);

/// The largest forward pass of this run on a GPU: on its own, or when it runs on the CPU, on any.
MemoryProblem memory_problem_of(const TrainConfig& config, const PreparedRun& run);

/// Loader options of this rank in a run that goes on after `first_step` optimizer steps. vocabulary_size: with
/// the model it decides what a cell costs.
data::LoaderOptions loader_options(const TrainConfig& config, int64_t first_step,
                                   const dist::Communicator& communicator, int64_t vocabulary_size);

/// "12.3 M" and the like, for counts of parameters, tokens, bytes.
std::string short_count(double count);

}  // namespace scrna::train
