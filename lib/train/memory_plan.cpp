#include "lib/train/memory_plan.h"

#include <algorithm>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/progress.h"
#include "lib/model/encoder.h"
#include "lib/ops/linear_cross_entropy.h"
#include "lib/train/memory_advice.h"

namespace scrna::train {
namespace {

using enum MemoryPart;

constexpr int64_t kFp32 = 4;
constexpr int64_t kBf16 = 2;
constexpr int64_t kInt64 = 8;
/// cuBLAS takes 32 MiB per thread that multiplies on Hopper (LibTorch's default): the main thread and
/// autograd's.
constexpr int64_t kLibraryWorkspaceBytes = 2 * (int64_t{32} << 20);
/// Rows of the head's logits that exist at once, at most.
constexpr int64_t kHeadRows = ops::LinearCrossEntropyOptions{}.rows_per_chunk;
constexpr int64_t kHeadColumnMultiple = 64;
/// Attention's gradient of Q is summed in fp32, in tiles of 64 tokens of one cell.
constexpr int64_t kQueryTile = 64;
/// Steps whose cells are on the device at once: the one that runs, the one enqueued behind it, and those that
/// the feeder has copied ahead.
constexpr int64_t kStepsAlive = 4;
/// What NCCL takes of a GPU for its connections, beside all tensors. One measurement, not a model of NCCL:
/// lib/dist/README.md, "Memory that NCCL takes", says of what and where it does not hold.
constexpr int64_t kNcclBytes = int64_t{840} << 20;

class Ledger {
 public:
  void at(std::string moment) { moment_ = std::move(moment); }
  void take(MemoryPart part, int64_t bytes) {
    now_.bytes[static_cast<std::size_t>(part)] += bytes;
    if (now_.total_bytes() <= peak_.total_bytes()) return;
    peak_ = now_;
    peak_.moment = moment_;
  }
  void give(MemoryPart part, int64_t bytes) {
    int64_t& held = now_.bytes[static_cast<std::size_t>(part)];
    held -= bytes;
    SCRNA_CHECK(held >= 0, "memory plan: more is freed than was taken {}", moment_);
  }
  /// What lives only during one operation.
  void pass_through(MemoryPart part, int64_t bytes) {
    take(part, bytes);
    give(part, bytes);
  }
  [[nodiscard]] int64_t held(MemoryPart part) const { return now_.part(part); }
  [[nodiscard]] const MemoryPlan& peak() const { return peak_; }

 private:
  MemoryPlan now_, peak_;
  std::string moment_;
};

/// One micro-batch through the model and back. Sizes in bytes; D, F as everywhere; c: compute type, s:
/// residual stream.
class Pass {
 public:
  Pass(const MemoryProblem& problem, Ledger& ledger) : problem_(problem), ledger_(ledger) {
    const model::ModelConfig& model = problem.model;
    const auto compute = static_cast<int64_t>(c10::elementSize(problem.compute_type));
    const int64_t tokens = problem.tokens;
    stream_ = tokens * model.width *
              static_cast<int64_t>(c10::elementSize(model::residual_type(model, problem.compute_type)));
    branch_ = tokens * model.width * compute;
    qkv_ = 3 * branch_;
    inner_ = tokens * model.feed_forward_width * compute;
    // Queries and keys in fp32 (RMS norm: and divided), and normalised. Not measured on a GPU.
    const int64_t copies = model.qk_norm == model::QkNorm::kNone ? 0 : model.qk_norm == model::QkNorm::kLayerNorm ? 1 : 2;
    head_norms_ = copies == 0 ? 0 : 2 * (copies * stream_ + branch_);
    statistics_ = 2 * tokens * kFp32;
    masked_ = problem.masked_tokens * model.width * compute;
    const bool is_softmax = model.attention == model::Attention::kSoftmax;
    log_sums_ = is_softmax ? tokens * model.num_heads * kFp32 : 0;
    query_sums_ = (tokens + problem.cells * kQueryTile) * model.width * kFp32;
    if (is_softmax)
      query_sums_ += qkv_;  // LibTorch's flash attention returns gradients of its own, copied then
    const int64_t columns =
        (problem.vocabulary_size + kHeadColumnMultiple - 1) / kHeadColumnMultiple * kHeadColumnMultiple;
    logits_ = std::min(problem.masked_tokens, kHeadRows) * columns * compute;
    if (problem.num_ranks > 0 && problem.gradient_type == dist::GradientType::kBf16) {
      sent_of_head_ = problem.vocabulary_size * model.width * kBf16;
      sent_of_layer_ = model.width * (4 * model.width + 2 * model.feed_forward_width) * kBf16;
    }
  }

  void run() {
    say("embedding", -1);
    ledger_.take(kActivations, stream_);  // h of the first block, the leaf of the backward pass
    const int64_t layers = problem_.model.num_layers;
    for (int64_t layer = 0; layer < layers; ++layer) {
      say("forward", layer);
      if (recomputes_blocks())
        forward_recomputed(layer);
      else
        forward_block(layer);
    }
    head();
    // Gradients in bf16 leave as they are complete; their copies stay until all are summed.
    ledger_.take(kSums, sent_of_head_);
    for (int64_t layer = layers - 1; layer >= 0; --layer) {
      if (recomputes_blocks())
        backward_recomputed(layer);
      else
        backward_block(layer, kActivations);
      ledger_.take(kSums, sent_of_layer_);
    }
    ledger_.give(kTransient,
                 2 * masked_ + stream_);  // the last: gradient of the embedding, after its scatter
    ledger_.give(kActivations, stream_);  // its leaf
    if (sent_of_head_ > 0) {
      say("last gradients on their way", -1);
      const int64_t rest = problem_.buffer_elements * kBf16 - sent_of_head_ - layers * sent_of_layer_;
      ledger_.take(kSums, std::max<int64_t>(rest, 0));
    }
    ledger_.give(kSums, ledger_.held(kSums));
    update();
  }

 private:
  /// AdamW works in place. A monitored step keeps the weights it began with beside it, for the update-to-weight ratio:
  /// activations are gone by then, so this is the peak only of large models on few tokens.
  void update() {
    if (problem_.is_monitored) {
      say("update, monitored: weights before it", -1);
      ledger_.pass_through(kTransient, problem_.buffer_elements * kFp32);
    }
  }
  void say(const std::string& what, int64_t layer) {
    ledger_.at(layer < 0 ? what : fmt::format("layer {}, {}", layer, what));
  }
  [[nodiscard]] bool recomputes_blocks() const { return problem_.recompute == model::Recompute::kBlock; }
  [[nodiscard]] bool recomputes_inner() const { return problem_.recompute != model::Recompute::kNone; }

  /// Saved by one block without its feed-forward: h and y of both LayerNorms, QKV, O. The first block's h is
  /// the embedding.
  [[nodiscard]] int64_t saved_of_block(int64_t layer) const {
    return (layer > 0 ? stream_ : 0) + stream_ + 2 * (branch_ + statistics_) + qkv_ + head_norms_ + branch_ + log_sums_;
  }

  /// From a branch's output as a transient (not before the first block) to the next one.
  void forward_block(int64_t layer) {
    ledger_.take(kActivations,
                 (layer > 0 ? stream_ : 0) + branch_ + statistics_);  // h = h + branch, y = LN(h)
    ledger_.take(kActivations, qkv_ + head_norms_);
    ledger_.take(kActivations, branch_ + log_sums_);  // O
    ledger_.take(kTransient, branch_);                // attention_output
    ledger_.take(kActivations, stream_ + branch_ + statistics_);
    const MemoryPart inner = recomputes_inner() ? kTransient : kActivations;
    ledger_.take(inner, 2 * inner_);    // z, gelu(z)
    ledger_.take(kTransient, branch_);  // feed_forward_out
    if (recomputes_inner()) ledger_.give(kTransient, 2 * inner_);
    // The branches that were added, this block's first and the one given, are named until its end.
    ledger_.give(kTransient, branch_ + (layer > 0 ? branch_ : 0));
  }

  /// The same with h, too, as a transient at both ends: what a block is given is all that it keeps.
  void forward_recomputed(int64_t layer) {
    if (layer > 0) {
      ledger_.give(kTransient, stream_ + branch_);
      ledger_.take(kActivations, stream_ + branch_);
    }
    const int64_t temporary = saved_of_block(layer) - stream_ + 2 * inner_;
    ledger_.take(kTransient, stream_ + branch_ + temporary);
    ledger_.give(kTransient, temporary);
  }

  /// Leaves the masked rows and their gradient, d_h and the last block's d_branch as transients.
  void head() {
    say("head", -1);
    ledger_.take(kActivations, stream_ + statistics_);  // h of the final LayerNorm
    ledger_.take(kTransient, branch_);                  // its y
    ledger_.give(kTransient, branch_);                  // the last block's branch
    if (recomputes_blocks()) ledger_.give(kTransient, stream_);
    ledger_.take(kTransient, masked_);
    ledger_.give(kTransient, branch_);  // y, of which the masked rows remain
    ledger_.take(kTransient, masked_);  // their gradient
    ledger_.pass_through(kWorkspace, logits_);
    say("head, backward", -1);
    ledger_.take(kTransient, branch_);  // d_y, zero but for the masked rows
    ledger_.take(kTransient, stream_ + branch_);
    ledger_.give(kTransient, branch_);
    ledger_.give(kActivations, stream_ + statistics_);
  }

  /// `kept`: where the activations that the block saved are booked. From d_h and d_branch to those of the
  /// block before.
  void backward_block(int64_t layer, MemoryPart kept) {
    say("backward: feed-forward", layer);
    if (recomputes_inner()) {
      ledger_.take(kTransient, 2 * inner_ + branch_);  // z, gelu(z) and the output, again
      ledger_.take(kTransient, branch_);               // the d_branch given, kept to the end of it
    }
    const MemoryPart inner = recomputes_inner() ? kTransient : kActivations;
    ledger_.take(kTransient, inner_);  // d gelu(z)
    ledger_.give(kTransient, branch_);
    ledger_.give(inner, inner_);
    ledger_.take(kTransient, inner_);  // d z
    ledger_.give(kTransient, inner_);
    ledger_.give(inner, inner_);
    ledger_.take(kTransient, branch_);  // d y
    ledger_.give(kTransient, inner_);
    ledger_.give(kept, branch_);  // y
    if (recomputes_inner()) ledger_.give(kTransient, 2 * branch_);
    say("backward: attention", layer);
    ledger_.take(kTransient, stream_ + branch_);  // d h and d branch out of the LayerNorm
    ledger_.give(kTransient, stream_ + branch_);
    ledger_.give(kept, stream_ + statistics_);
    ledger_.take(kTransient, branch_);  // d O
    ledger_.give(kTransient, branch_);
    ledger_.give(kept, branch_);  // O
    ledger_.take(kTransient, qkv_);
    ledger_.pass_through(kWorkspace, query_sums_);
    ledger_.give(kTransient, branch_);
    ledger_.give(kept, qkv_ + head_norms_ + log_sums_);
    ledger_.take(kTransient, branch_);  // d y
    ledger_.give(kTransient, qkv_);
    ledger_.give(kept, branch_);  // y
    ledger_.take(kTransient, stream_ + (layer > 0 ? branch_ : 0));
    ledger_.give(kTransient, stream_ + branch_);
    ledger_.give(kept, (layer > 0 ? stream_ : 0) + statistics_);
  }

  void backward_recomputed(int64_t layer) {
    say("forward again", layer);
    ledger_.take(kTransient, stream_ + branch_);  // the gradients given, kept to the end of the block
    ledger_.take(kTransient, saved_of_block(layer));
    backward_block(layer, kTransient);
    ledger_.give(kTransient, stream_ + branch_);
    if (layer > 0) ledger_.give(kActivations, stream_ + branch_);
  }

  const MemoryProblem& problem_;
  Ledger& ledger_;
  int64_t stream_ = 0;      // [T, D] of the residual stream
  int64_t head_norms_ = 0;  // of qk_norm
  int64_t branch_ = 0;      // [T, D] of the compute type
  int64_t qkv_ = 0;         // [T, 3D]
  int64_t inner_ = 0;       // [T, F]
  int64_t statistics_ = 0;  // mean and 1 / deviation of a LayerNorm
  int64_t masked_ = 0;      // [M, D]
  int64_t log_sums_ = 0;    // [H, T] of softmax
  int64_t query_sums_ = 0;  // scratch of attention's backward pass
  int64_t logits_ = 0;
  int64_t sent_of_head_ = 0;   // gradients in bf16
  int64_t sent_of_layer_ = 0;
};

double gigabytes(int64_t bytes) { return static_cast<double>(bytes) / 1e9; }

int64_t persistent_bytes(const MemoryPlan& plan) {
  return plan.part(kWeights) + plan.part(kComputeCopy) + plan.part(kGradients) + plan.part(kMoments);
}

}  // namespace

int64_t MemoryPlan::total_bytes() const {
  int64_t sum = 0;
  for (const int64_t part_bytes : bytes) sum += part_bytes;
  return sum;
}

MemoryPlan plan_memory(const MemoryProblem& problem) {
  Ledger ledger;
  ledger.at("model");
  ledger.take(kWeights, problem.buffer_elements * kFp32);
  ledger.take(kGradients, problem.buffer_elements * kFp32);
  ledger.take(kMoments, 2 * problem.moment_elements.value_or(problem.buffer_elements) * kFp32);
  if (problem.compute_type != at::kFloat) {
    ledger.take(kComputeCopy,
                problem.buffer_elements * static_cast<int64_t>(c10::elementSize(problem.compute_type)));
  }
  ledger.take(kWorkspace, kLibraryWorkspaceBytes);
  const int64_t bytes_of_pass = kInt64 * (2 * problem.tokens + 2 * problem.masked_tokens + 2 * problem.cells);
  const double passes = problem.tokens > 0
                            ? static_cast<double>(std::max(problem.step_tokens, problem.tokens)) /
                                  static_cast<double>(problem.tokens)
                            : 1.0;
  ledger.take(kBatch, kStepsAlive * std::llround(passes * static_cast<double>(bytes_of_pass)));
  Pass(problem, ledger).run();
  SCRNA_CHECK(ledger.held(kActivations) == 0 && ledger.held(kTransient) == 0,
              "memory plan: {} bytes of activations and {} of the moment are never freed",
              ledger.held(kActivations), ledger.held(kTransient));
  MemoryPlan plan = ledger.peak();
  if (problem.num_ranks > 0) plan.nccl_bytes = kNcclBytes;
  return plan;
}

MemoryProblem memory_problem(const TrainConfig& config, int64_t vocabulary_size, int64_t buffer_elements,
                             at::ScalarType compute_type, int64_t longest_cell_tokens,
                             double mean_cell_tokens) {
  const int64_t longest = std::min(longest_cell_tokens, config.tokenizer.max_tokens);
  const int64_t tokens = std::min(std::max(config.data.tokens_per_micro_batch, longest),
                                  config.train.global_batch_cells * longest);
  return {.model = config.model,
          .vocabulary_size = vocabulary_size,
          .buffer_elements = buffer_elements,
          .compute_type = compute_type,
          .recompute = config.train.recompute,
          .tokens = tokens,
          .masked_tokens = std::llround(config.masking.fraction * static_cast<double>(tokens)),
          .cells = std::max<int64_t>(1, tokens / std::max<int64_t>(1, longest)),
          .step_tokens =
              std::llround(mean_cell_tokens * static_cast<double>(config.train.global_batch_cells)),
          .gradient_type = config.dist.gradient_type,
          .is_monitored = config.monitor.every_steps > 0};
}

std::string plan_words(const MemoryPlan& plan, int64_t tokens) {
  const int64_t persistent = persistent_bytes(plan);
  std::string text = fmt::format(
      "needs {:.1f} GB at {} tokens a forward pass: {:.1f} weights, gradients and AdamW, {:.1f} activations, "
      "{:.1f} the rest",
      gigabytes(plan.total_bytes()), grouped(tokens), gigabytes(persistent),
      gigabytes(plan.part(kActivations)),
      gigabytes(plan.total_bytes() - persistent - plan.part(kActivations)));
  if (plan.nccl_bytes > 0) text += fmt::format("; and {:.1f} GB for NCCL", gigabytes(plan.nccl_bytes));
  return text;
}

std::string shortage(const MemoryPlan& plan, const DeviceMemory& memory, const TrainConfig& config,
                     int64_t num_ranks) {
  const int64_t missing = plan.total_bytes() + plan.nccl_bytes - memory.allocated_bytes;
  const int64_t available = memory.free_bytes + memory.reserved_bytes - memory.allocated_bytes;
  if (missing <= available) return {};
  return fmt::format(
      "a step will need {:.1f} GB more of the GPU's memory, but {:.1f} GB of {:.1f} GB are free; {}",
      gigabytes(missing), gigabytes(available), gigabytes(memory.total_bytes),
      memory_advice(config, num_ranks));
}

}  // namespace scrna::train
