#include "lib/train/memory_advice.h"

#include <string>

#include <c10/util/Exception.h>

#include "lib/core/error.h"

namespace scrna::train {
namespace {

// LibTorch's first sentences: what was asked for and what was free; the rest is about its own switches.
std::string first_sentences(const std::string& message, int count) {
  std::size_t end = 0;
  for (int i = 0; i < count && end != std::string::npos; ++i) end = message.find(". ", end + (i > 0 ? 2 : 0));
  return message.substr(0, std::min(end, message.find('\n')));
}

}  // namespace

std::string memory_advice(const TrainConfig& config, int64_t num_ranks) {
  std::string text;
  // A cell is never split: below its length the token budget changes nothing.
  if (config.data.tokens_per_micro_batch > config.tokenizer.max_tokens) {
    text += fmt::format("lower data.tokens_per_micro_batch ({}), ", config.data.tokens_per_micro_batch);
  }
  if (config.train.recompute == model::Recompute::kNone) {
    text += "set train.recompute (none) to feed_forward or block, ";
  } else if (config.train.recompute == model::Recompute::kFeedForward) {
    text += "set train.recompute (feed_forward) to block, ";
  }
  if (num_ranks > 1 && !config.dist.shard_optimizer) text += "set dist.shard_optimizer to true, ";
  // The tokens of a few whole steps wait on the device: many only where a step has many cells.
  constexpr int64_t kManyCells = 4096;
  if (config.train.global_batch_cells > kManyCells) {
    text += fmt::format("lower train.global_batch_cells ({}), ", config.train.global_batch_cells);
  }
  return text +
         fmt::format(
             "lower tokenizer.max_tokens ({}: the longest cell is one forward pass), or choose a smaller "
             "model",
             config.tokenizer.max_tokens);
}

void with_memory_advice(const TrainConfig& config, const std::function<void()>& work, int64_t num_ranks) {
  try {
    work();
  } catch (const c10::OutOfMemoryError& problem) {
    throw DeviceError("the GPU's memory is full; {} ({})", memory_advice(config, num_ranks),
                      first_sentences(problem.what_without_backtrace(), 3));
  }
}

}  // namespace scrna::train
