// How much of a GPU's memory a run needs, told before its first step. Not a fitted formula but the step
// itself, tensor by tensor: memory_plan.cpp allocates and frees in the order in which lib/model/block.cpp,
// encoder.cpp and their backward passes do, and the plan is the ledger at its peak. So who changes what the
// model saves changes a line there, and the test on a GPU (tests/train) says if it was forgotten. Counted are
// the fused operations of the GPU; the CPU's twins save other tensors.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <c10/core/ScalarType.h>

#include "lib/model/model_config.h"
#include "lib/train/device_memory.h"
#include "lib/train/train_config.h"

namespace scrna::train {

/// What decides the memory of a step: the model, and its largest forward pass.
struct MemoryProblem {
  model::ModelConfig model;
  int64_t vocabulary_size = 0;  // V, special tokens included
  int64_t buffer_elements = 0;  // of a flat parameter buffer, gaps included: ParameterSet::values().numel()
  at::ScalarType compute_type = at::kBFloat16;
  model::Recompute recompute = model::Recompute::kNone;
  int64_t tokens = 0;         // T of the largest micro-batch
  int64_t masked_tokens = 0;  // M of it
  int64_t cells = 0;          // B of it
  int64_t step_tokens = 0;    // of a whole step on this rank; below tokens: the step is this micro-batch
  std::optional<int64_t> moment_elements;  // that this rank keeps of each moment; nothing: buffer_elements
  int64_t num_ranks = 0;                   // that sum gradients; 0: this process is alone
  dist::GradientType gradient_type = dist::GradientType::kFp32;
  bool is_monitored = false;  // some steps keep the weights from before the update (monitor.every_steps)
};

enum class MemoryPart {
  kWeights,      // fp32
  kComputeCopy,  // of the weights, in the compute type
  kGradients,    // fp32
  kMoments,      // AdamW's two, fp32
  kActivations,  // saved for the backward pass
  kTransient,    // tensors of the moment: gradients of activations, a branch's output, recomputed activations,
                 // a monitored step's copy of the weights
  kSums,         // bf16 copies of gradients on their way to the other ranks
  kWorkspace,    // scratch of attention, head, libraries
  kBatch         // tokens and masks of the micro-batches on the device
};
inline constexpr std::array kMemoryParts{
    std::pair{MemoryPart::kWeights, std::string_view("weights")},
    std::pair{MemoryPart::kComputeCopy, std::string_view("copy for products")},
    std::pair{MemoryPart::kGradients, std::string_view("gradients")},
    std::pair{MemoryPart::kMoments, std::string_view("AdamW moments")},
    std::pair{MemoryPart::kActivations, std::string_view("activations")},
    std::pair{MemoryPart::kTransient, std::string_view("of the moment")},
    std::pair{MemoryPart::kSums, std::string_view("sums over ranks")},
    std::pair{MemoryPart::kWorkspace, std::string_view("workspaces")},
    std::pair{MemoryPart::kBatch, std::string_view("batches")}};

struct MemoryPlan {
  std::array<int64_t, kMemoryParts.size()> bytes{};  // of each part when the sum is largest
  std::string moment;  // where that is, for example "layer 11, backward: feed-forward"
  int64_t nccl_bytes = 0;  // that NCCL takes besides: no tensors, not in total_bytes()
  [[nodiscard]] int64_t part(MemoryPart which) const { return bytes[static_cast<std::size_t>(which)]; }
  [[nodiscard]] int64_t total_bytes() const;
};

/// Bytes that tensors hold at the peak of a training step: what DeviceMemory::peak_bytes measures.
MemoryPlan plan_memory(const MemoryProblem& problem);

/// The largest forward pass that this configuration allows: data.tokens_per_micro_batch, or one longer cell,
/// but no more than the cells of a step. longest_cell_tokens, mean_cell_tokens: of the corpus, after truncation.
MemoryProblem memory_problem(const TrainConfig& config, int64_t vocabulary_size, int64_t buffer_elements,
                             at::ScalarType compute_type, int64_t longest_cell_tokens,
                             double mean_cell_tokens = 0);

/// "needs 27.1 GB at 65,536 tokens a forward pass: 2.8 weights, gradients, AdamW; 21.7 activations; 2.6 the
/// rest".
std::string plan_words(const MemoryPlan& plan, int64_t tokens);

/// Compares with what the device can still give, its persistent tensors being there already. Empty: it fits;
/// otherwise the warning, with the settings to change.
std::string shortage(const MemoryPlan& plan, const DeviceMemory& memory, const TrainConfig& config,
                     int64_t num_ranks = 1);

}  // namespace scrna::train
