// Threads: `num_workers` readers take blocks of the oldest window that has some left and tokenize them; one
// packer walks through the finished window in the epoch's order, collects the cells of a step, distributes
// them over packs and fills a bounded queue; next() takes from the queue. At most two windows are alive, so
// memory is bounded by 2 windows of tokens, one step's tokens and the queue.
#include "lib/data/loader.h"

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/data/block_tokens.h"
#include "lib/data/masking.h"
#include "lib/data/order.h"
#include "lib/data/pack_plan.h"
#include "lib/data/packing.h"
#include "lib/data/rank_plan.h"

namespace scrna::data {
namespace {

constexpr std::size_t kWindowsAlive = 2;

// The order of one epoch over the blocks that have places in it.
struct Epoch {
  int64_t index = 0;
  std::optional<EpochSample> sample;  // without: each training cell once
  std::vector<uint32_t> ranges;       // [blocks] index of each block's range
  std::vector<int32_t> sizes;         // [blocks] places
  std::optional<EpochOrder> order;    // of the blocks
};

struct Window {
  std::shared_ptr<const Epoch> epoch;
  int64_t begin = 0;                  // position in the endless sequence of epochs
  std::vector<uint32_t> blocks;       // of the epoch
  std::vector<uint32_t> block_begin;  // [blocks + 1] first cell of each block in their concatenation
  std::vector<uint32_t> shuffle;      // [places] position in the window -> cell of the concatenation
  std::vector<uint8_t> is_ours;       // [places] by position
  std::vector<uint8_t> is_needed;     // [cells] by cell of the concatenation
  std::vector<BlockTokens> results;
  std::size_t next_block = 0;
  std::size_t num_done = 0;
  std::exception_ptr problem;
  [[nodiscard]] int64_t end() const { return begin + std::ssize(shuffle); }
};

// The cells of one step on this rank, before they are packed.
struct StepCells {
  int64_t step = 0;
  int64_t epoch = 0;            // of the first cell
  std::vector<int32_t> tokens;  // of all cells, one after another
  std::vector<int32_t> lengths;
  std::vector<uint64_t> cell_ids;
  std::vector<uint64_t> mask_keys;
};

struct QueueEntry {
  GlobalBatch batch;
  std::exception_ptr problem;
};

void check(const LoaderOptions& options) {
  if (options.global_batch_cells < 1 || options.global_batch_cells < options.num_ranks) {
    throw ConfigError("train.global_batch_cells: expected at least one cell per rank ({} ranks), got {}",
                      options.num_ranks, options.global_batch_cells);
  }
  SCRNA_CHECK(options.rank >= 0 && options.rank < options.num_ranks, "rank {} of {}", options.rank,
              options.num_ranks);
  SCRNA_CHECK(options.num_workers >= 1 && options.prefetch_steps >= 1 && options.first_step >= 0,
              "{} workers, {} steps ahead, first step {}", options.num_workers, options.prefetch_steps,
              options.first_step);
}

}  // namespace

LoaderOptions loader_options(const DataConfig& data, const MaskingConfig& masking, uint64_t seed,
                             int64_t global_batch_cells) {
  return {.seed = seed,
          .global_batch_cells = global_batch_cells,
          .mask_fraction = masking.fraction,
          .tokens_per_micro_batch = data.tokens_per_micro_batch,
          .shuffle_block_cells = data.shuffle_block_cells,
          .shuffle_window_cells = data.shuffle_window_cells,
          .num_workers = data.num_workers};
}

struct TrainLoader::Impl {
  Impl(const Corpus& corpus_, const LoaderOptions& options_)
      : corpus(corpus_),
        options(options_),
        ranges(corpus.ranges(CellRole::kTraining, options.shuffle_block_cells)),
        rank_plan(options.num_ranks) {
    first_position = options.first_step * options.global_batch_cells;
    epoch = make_epoch(first_position / corpus.num_training_cells());
    next_window = epoch->order->window_of(first_position % corpus.num_training_cells());
    try {
      for (int64_t i = 0; i < options.num_workers; ++i) threads.emplace_back([this] { read_blocks(); });
      threads.emplace_back([this] { pack_windows(); });
    } catch (...) {  // no more threads to be had: those there are must not be waited for in vain
      stop();
      throw;
    }
  }

  ~Impl() { stop(); }

  void stop() {
    {
      const std::scoped_lock lock(mutex);
      is_stopping = true;
    }
    work_changed.notify_all();
    window_changed.notify_all();
    queue_changed.notify_all();
  }

  [[nodiscard]] std::shared_ptr<const Epoch> make_epoch(int64_t index) const {
    auto made = std::make_shared<Epoch>();
    made->index = index;
    if (!corpus.sampling_groups().empty()) made->sample.emplace(corpus, ranges, options.seed, index);
    for (std::size_t range = 0; range < ranges.size(); ++range) {
      const int64_t places = made->sample ? made->sample->num_places(range) : ranges[range].num_cells;
      if (places == 0) continue;
      made->ranges.push_back(static_cast<uint32_t>(range));
      made->sizes.push_back(static_cast<int32_t>(places));
    }
    made->order.emplace(made->sizes, options.shuffle_window_cells, options.seed, index);
    return made;
  }

  // ---- readers
  void read_blocks() {
    try {
      read_blocks_until_stopped();
    } catch (...) {  // out of memory between two blocks, say
      const std::scoped_lock lock(mutex);
      if (!reader_problem) reader_problem = std::current_exception();
      window_changed.notify_all();
    }
  }

  void read_blocks_until_stopped() {
    BlockReader reader(corpus);
    std::unique_lock lock(mutex);
    for (;;) {
      Window* window = nullptr;
      work_changed.wait(lock, [&] { return is_stopping || (window = window_with_work()) != nullptr; });
      if (is_stopping) return;
      const std::size_t block = window->next_block++;
      lock.unlock();
      std::exception_ptr problem;
      try {
        read_block(*window, block, reader);
      } catch (...) {
        problem = std::current_exception();
      }
      lock.lock();
      if (problem && !window->problem) window->problem = problem;
      if (++window->num_done == window->blocks.size()) window_changed.notify_all();
    }
  }

  // The oldest window with a block to read; begins a new one when there is room. Needs the mutex.
  Window* window_with_work() {
    for (const auto& window : windows) {
      if (window->next_block < window->blocks.size()) return window.get();
    }
    if (windows.size() >= kWindowsAlive) return nullptr;
    windows.push_back(begin_window());
    work_changed.notify_all();
    return windows.back().get();
  }

  std::unique_ptr<Window> begin_window() {
    if (next_window == epoch->order->num_windows()) {
      epoch = make_epoch(epoch->index + 1);
      next_window = 0;
    }
    const EpochOrder& order = *epoch->order;
    auto window = std::make_unique<Window>();
    window->epoch = epoch;
    window->begin = epoch->index * corpus.num_training_cells() + order.window_begin(next_window);
    const auto blocks = order.window_blocks(next_window);
    window->blocks.assign(blocks.begin(), blocks.end());
    window->block_begin.push_back(0);
    for (const uint32_t block : blocks) {
      window->block_begin.push_back(window->block_begin.back() + static_cast<uint32_t>(epoch->sizes[block]));
    }
    window->shuffle = order.window_shuffle(next_window);
    share_out(*window);
    window->is_needed.resize(window->shuffle.size());
    for (std::size_t i = 0; i < window->shuffle.size(); ++i) {
      if (window->is_ours[i] != 0) window->is_needed[window->shuffle[i]] = 1;
    }
    window->results.resize(blocks.size());
    ++next_window;
    return window;
  }

  // Which positions of the window this rank trains. Windows come in order, so a step that began in the window
  // before goes on where it was.
  void share_out(Window& window) {
    window.is_ours.resize(window.shuffle.size());
    const int64_t first = std::max(window.begin, first_position);
    if (options.num_ranks == 1) {
      for (int64_t position = first; position < window.end(); ++position)
        window.is_ours[static_cast<std::size_t>(position - window.begin)] = 1;
      return;
    }
    const std::vector<int64_t> costs = costs_of(window);
    std::vector<int64_t> of_step;
    for (int64_t position = first; position < window.end();) {
      const int64_t done = position % options.global_batch_cells;
      if (done == 0) rank_plan.begin_step();
      const int64_t end = std::min(window.end(), position + options.global_batch_cells - done);
      of_step.clear();
      for (int64_t p = position; p < end; ++p)
        of_step.push_back(costs[window.shuffle[static_cast<std::size_t>(p - window.begin)]]);
      const std::vector<int32_t> ranks = rank_plan.assign(of_step);
      for (const int32_t rank : ranks)
        window.is_ours[static_cast<std::size_t>(position++ - window.begin)] = rank == options.rank ? 1 : 0;
    }
  }

  // [places] by place of the concatenation of the window's blocks.
  [[nodiscard]] std::vector<int64_t> costs_of(const Window& window) const {
    std::vector<int64_t> costs;
    costs.reserve(window.shuffle.size());
    for (const uint32_t block : window.blocks) {
      const uint32_t index = window.epoch->ranges[block];
      const CellRange& range = ranges[index];
      const std::span<const uint16_t> times =
          window.epoch->sample ? window.epoch->sample->times(index) : std::span<const uint16_t>();
      std::size_t cell = 0;  // of the range
      for (int64_t row = range.first_row; row < range.first_row + range.num_rows; ++row) {
        if (corpus.role(range.source, row) != CellRole::kTraining) continue;
        const std::size_t copies = times.empty() ? 1 : times[cell];
        costs.insert(costs.end(), copies,
                     cell_cost(expected_tokens(corpus, range.source, row), options.squared_length_weight));
        ++cell;
      }
    }
    SCRNA_CHECK(costs.size() == window.shuffle.size(), "{} costs of {} places", costs.size(), window.shuffle.size());
    return costs;
  }

  void read_block(Window& window, std::size_t index, BlockReader& reader) const {
    const std::size_t block = window.blocks[index];
    const Epoch& of = *window.epoch;
    const auto is_needed = std::span(window.is_needed)
                               .subspan(window.block_begin[index], static_cast<std::size_t>(of.sizes[block]));
    window.results[index] = reader.read(ranges, of.ranges[block], is_needed,
                                        of.sample ? &*of.sample : nullptr, options.seed, of.index);
  }

  // ---- packer
  void pack_windows() {
    try {
      while (Window* window = wait_for_window()) {
        if (window->problem) {
          enqueue({.batch = {}, .problem = window->problem});
          return;
        }
        if (!pack(*window)) return;
        {
          const std::scoped_lock lock(mutex);
          windows.pop_front();
        }
        work_changed.notify_all();
      }
    } catch (...) {
      enqueue({.batch = {}, .problem = std::current_exception()});
    }
  }

  Window* wait_for_window() {
    std::unique_lock lock(mutex);
    window_changed.wait(lock, [&] {
      return is_stopping || reader_problem ||
             (!windows.empty() && windows.front()->num_done == windows.front()->blocks.size());
    });
    if (reader_problem) std::rethrow_exception(reader_problem);
    return is_stopping ? nullptr : windows.front().get();
  }

  // False when the loader is being destroyed.
  bool pack(const Window& window) {
    for (int64_t position = std::max(window.begin, first_position); position < window.end(); ++position) {
      const int64_t cell_of_step = position % options.global_batch_cells;
      if (cell_of_step == 0)
        cells = {.step = position / options.global_batch_cells, .epoch = window.epoch->index};
      const auto index = static_cast<std::size_t>(position - window.begin);
      if (window.is_ours[index] != 0) add_cell(window, window.shuffle[index]);
      if (cell_of_step + 1 == options.global_batch_cells) {
        if (!enqueue({.batch = packed(std::exchange(cells, {})), .problem = nullptr})) return false;
      }
    }
    return true;
  }

  void add_cell(const Window& window, uint32_t cell) {
    const auto block = static_cast<std::size_t>(
        std::upper_bound(window.block_begin.begin(), window.block_begin.end(), cell) -
        window.block_begin.begin() - 1);
    const std::size_t in_block = cell - window.block_begin[block];
    const BlockTokens& result = window.results[block];
    const std::span<const int32_t> tokens = result.tokens_of(in_block);
    cells.tokens.insert(cells.tokens.end(), tokens.begin(), tokens.end());
    cells.lengths.push_back(static_cast<int32_t>(tokens.size()));
    cells.cell_ids.push_back(result.cell_ids[in_block]);
    cells.mask_keys.push_back(result.mask_keys[in_block]);
  }

  [[nodiscard]] GlobalBatch packed(const StepCells& of_step) const {
    GlobalBatch batch;
    batch.step = of_step.step;
    batch.epoch = of_step.epoch;
    std::vector<std::size_t> begin(of_step.lengths.size());  // of each cell's tokens
    for (std::size_t cell = 1; cell < begin.size(); ++cell)
      begin[cell] = begin[cell - 1] + static_cast<std::size_t>(of_step.lengths[cell - 1]);
    Packer packer(options.tokens_per_micro_batch, options.mask_fraction);
    for (const std::vector<int32_t>& pack_cells :
         plan_packs(of_step.lengths, options.tokens_per_micro_batch)) {
      for (const int32_t index : pack_cells) {
        const auto cell = static_cast<std::size_t>(index);
        const auto tokens =
            std::span(of_step.tokens).subspan(begin[cell], static_cast<std::size_t>(of_step.lengths[cell]));
        packer.add(tokens, of_step.cell_ids[cell],
                   training_mask_stream(options.seed, batch.step, of_step.mask_keys[cell]));
      }
      batch.micro_batches.push_back(packer.take());
      const PackedMicroBatch& pack = batch.micro_batches.back();
      batch.num_cells += pack.num_cells();
      batch.num_tokens += pack.num_tokens();
      batch.num_masked += pack.num_masked();
    }
    return batch;
  }

  bool enqueue(QueueEntry entry) {
    std::unique_lock lock(mutex);
    queue_changed.wait(lock, [&] { return is_stopping || std::ssize(queue) < options.prefetch_steps; });
    if (is_stopping) return false;
    queue.push_back(std::move(entry));
    queue_changed.notify_all();
    return true;
  }

  GlobalBatch next() {
    const ScopedTimer timer(waited_seconds);
    std::unique_lock lock(mutex);
    queue_changed.wait(lock, [&] { return is_stopping || !queue.empty(); });
    SCRNA_CHECK(!is_stopping, "a batch was asked of a loader that was stopped");
    if (queue.front().problem)
      std::rethrow_exception(queue.front().problem);  // stays: the next call throws again
    GlobalBatch result = std::move(queue.front().batch);
    queue.pop_front();
    queue_changed.notify_all();
    return result;
  }

  const Corpus& corpus;
  const LoaderOptions options;
  const std::vector<CellRange> ranges;
  int64_t first_position = 0;
  double waited_seconds = 0;  // of the thread that calls next()

  std::mutex mutex;                        // guards what follows, up to the packer's state
  std::condition_variable work_changed;    // a window began or ended
  std::condition_variable window_changed;  // a window is complete
  std::condition_variable queue_changed;
  bool is_stopping = false;
  std::exception_ptr reader_problem;  // that belongs to no window
  std::shared_ptr<const Epoch> epoch;
  int64_t next_window = 0;  // of `epoch`
  RankPlan rank_plan;       // of the step that the newest window ended in
  std::deque<std::unique_ptr<Window>> windows;
  std::deque<QueueEntry> queue;

  StepCells cells;                    // the packer thread's alone
  std::vector<std::jthread> threads;  // last: joined before anything they use is destroyed
};

TrainLoader::TrainLoader(const Corpus& corpus, const LoaderOptions& options) {
  check(options);
  impl_ = std::make_unique<Impl>(corpus, options);
}
TrainLoader::~TrainLoader() = default;
GlobalBatch TrainLoader::next() { return impl_->next(); }
void TrainLoader::stop() { impl_->stop(); }
double TrainLoader::waited_seconds() const { return impl_->waited_seconds; }

}  // namespace scrna::data
