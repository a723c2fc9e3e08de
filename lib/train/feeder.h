// Brings the cells of a step to the device before the step asks for them. A thread takes batches from the
// loader, puts the arrays of each micro-batch into one pinned buffer and copies it to the GPU on a stream of
// its own; next() lets the current stream wait for that copy, and the host waits only when no batch is ready.
// On the CPU the same thread makes plain tensors.
//
// Memory: at most kDepthSteps steps ahead, fewer when they are large. Device buffers come from LibTorch's
// allocator on the copying stream and are marked as used by the stream that next() was called on, so a batch
// may be dropped as soon as its work is enqueued; pinned buffers are given out again when their copy is done.
// Rejected: a ring of buffers of our own, which needs the largest batch in advance and saves nothing.
#pragma once

#include <memory>

#include <c10/core/Device.h>

#include "lib/data/loader.h"
#include "lib/train/device_batch.h"

namespace scrna::train {

class Feeder {
 public:
  static constexpr int64_t kDepthSteps = 2;
  /// A second step is not copied ahead when the first is larger.
  static constexpr int64_t kMaxBytesAhead = int64_t{256} << 20;

  /// Starts the threads, the loader's too. The corpus must outlive the feeder. Throws ConfigError as
  /// TrainLoader does.
  Feeder(const data::Corpus& corpus, const data::LoaderOptions& options, at::Device device);
  /// Stops and joins the threads: at most the block each is reading is finished, and one batch's copy
  /// enqueued.
  ~Feeder();
  Feeder(const Feeder&) = delete;
  Feeder& operator=(const Feeder&) = delete;

  /// Steps options.first_step, first_step + 1, ... The tensors are ready for the device's current stream (of
  /// this thread) and must be used on it. Blocks while no batch is ready; rethrows, each time, what a thread
  /// threw.
  DeviceBatch next();
  /// Seconds next() has waited for a batch so far. On a GPU with work in its queue not all of them are lost.
  [[nodiscard]] double waited_seconds() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace scrna::train
