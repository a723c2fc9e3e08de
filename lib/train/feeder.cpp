#include "lib/train/feeder.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "lib/core/clock.h"

namespace scrna::train {
namespace {

struct Entry {
  DeviceBatch batch;
  std::optional<c10::Event> copied;  // recorded behind the batch's copies; none on the CPU
  int64_t num_bytes = 0;
  std::exception_ptr problem;
};

// A device without an index is the current one of the calling thread, which need not be that of ours.
at::Device with_index(at::Device device) {
  return device.is_cuda() && !device.has_index() ? c10::impl::VirtualGuardImpl(device.type()).getDevice()
                                                 : device;
}

// All tensors of a micro-batch are views of one storage (model::to_device).
int64_t bytes_of(const DeviceBatch& batch) {
  int64_t bytes = 0;
  for (const model::TokenTensors& micro_batch : batch.micro_batches)
    bytes += static_cast<int64_t>(micro_batch.tokens.storage().nbytes());
  return bytes;
}

}  // namespace

struct Feeder::Impl {
  Impl(const data::Corpus& corpus, const data::LoaderOptions& options, at::Device device_)
      : loader(corpus, options), device(with_index(device_)), thread([this] { feed(); }) {}

  ~Impl() {
    {
      const std::scoped_lock lock(mutex);
      is_stopping = true;
    }
    changed.notify_all();
    loader.stop();
  }

  // ---- the thread
  void feed() {
    try {
      std::optional<c10::Stream> copying;
      if (device.is_cuda())
        copying = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
      while (wait_for_room()) push(on_device(loader.next(), copying));
    } catch (...) {  // also what loader.next() throws when it was stopped, which nobody will see
      Entry entry;
      entry.problem = std::current_exception();
      push(std::move(entry));
    }
  }

  // False when the feeder is being destroyed.
  bool wait_for_room() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] {
      return is_stopping || queue.empty() ||
             (std::ssize(queue) < kDepthSteps && bytes_ahead <= kMaxBytesAhead);
    });
    return !is_stopping;
  }

  [[nodiscard]] Entry on_device(const GlobalBatch& batch, const std::optional<c10::Stream>& copying) const {
    Entry entry;
    if (copying) {
      const c10::StreamGuard guard(*copying);
      entry.batch = to_device(batch, device);
      entry.copied.emplace(device.type());
      entry.copied->record(*copying);
    } else {
      entry.batch = to_device(batch, device);
    }
    entry.num_bytes = bytes_of(entry.batch);
    return entry;
  }

  void push(Entry entry) {
    const std::scoped_lock lock(mutex);
    bytes_ahead += entry.num_bytes;
    queue.push_back(std::move(entry));
    changed.notify_all();
  }

  // ---- the caller
  DeviceBatch next() {
    Entry entry = pop();
    if (entry.copied) {
      const c10::Stream current = c10::impl::VirtualGuardImpl(device.type()).getStream(device);
      entry.copied->block(current);
      for (const model::TokenTensors& micro_batch : entry.batch.micro_batches)
        micro_batch.tokens.record_stream(current);
    }
    return std::move(entry.batch);
  }

  Entry pop() {
    const ScopedTimer timer(waited_seconds);
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return !queue.empty(); });
    if (queue.front().problem)
      std::rethrow_exception(queue.front().problem);  // stays: the next call throws again
    Entry entry = std::move(queue.front());
    queue.pop_front();
    bytes_ahead -= entry.num_bytes;
    changed.notify_all();
    return entry;
  }

  data::TrainLoader loader;
  const at::Device device;
  double waited_seconds = 0;  // of the thread that calls next()

  std::mutex mutex;  // guards what follows
  std::condition_variable changed;
  std::deque<Entry> queue;
  int64_t bytes_ahead = 0;
  bool is_stopping = false;

  std::jthread thread;  // last: joined before anything it uses is destroyed
};

Feeder::Feeder(const data::Corpus& corpus, const data::LoaderOptions& options, at::Device device)
    : impl_(std::make_unique<Impl>(corpus, options, device)) {}
Feeder::~Feeder() = default;
DeviceBatch Feeder::next() { return impl_->next(); }
double Feeder::waited_seconds() const { return impl_->waited_seconds; }

}  // namespace scrna::train
