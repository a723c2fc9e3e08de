#include "lib/bench/shuffled_pass.h"

#include <algorithm>
#include <atomic>
#include <barrier>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>

#include "lib/data/order.h"

namespace scrna::bench {
namespace {

struct Block {
  std::size_t source = 0;
  int64_t first_row = 0;
};

// Cells one after another: of a block as it was read, or of a batch as it is delivered.
struct Cells {
  std::vector<int64_t> begin{0};  // [cells + 1]
  std::vector<int32_t> ids;       // genes or tokens
  std::vector<float> values;      // of genes; empty for tokens
};

// Fills `out` with the cells of a block. One of each thread, for its scratch memory.
using ReadBlock = std::function<void(const Block& block, int64_t num_rows, Cells& out)>;

class Pass {
 public:
  Pass(const std::vector<data::CellSource>& sources, const ShuffledPassOptions& options)
      : options_(options), barrier_(static_cast<std::ptrdiff_t>(options.workers)) {
    for (std::size_t source = 0; source < sources.size(); ++source) {
      const int64_t rows = sources[source].matrix->num_cells();
      for (int64_t first = 0; first < rows; first += options.block_cells) {
        blocks_.push_back({source, first});
        sizes_.push_back(static_cast<int32_t>(std::min(options.block_cells, rows - first)));
      }
    }
    order_.emplace(sizes_, options.window_cells, options.seed, options.epoch);
  }

  PassTotals run(const std::function<ReadBlock()>& reader_of_thread) {
    begin_window(0);
    {
      std::vector<std::jthread> threads;
      for (int64_t i = 0; i < options_.workers; ++i) {
        threads.emplace_back([this, i, read = reader_of_thread()] { work(read, i == 0); });
      }
    }
    if (problem_) std::rethrow_exception(problem_);
    return totals_;
  }

 private:
  void begin_window(int64_t window) {
    const auto blocks = order_->window_blocks(window);
    window_blocks_.assign(blocks.begin(), blocks.end());
    block_begin_.assign(1, 0);
    for (const uint32_t block : window_blocks_)
      block_begin_.push_back(block_begin_.back() + static_cast<uint32_t>(sizes_[block]));
    shuffle_ = order_->window_shuffle(window);
    if (results_.size() < window_blocks_.size()) results_.resize(window_blocks_.size());
    next_block_ = 0;
    next_cell_ = 0;
  }

  void work(const ReadBlock& read, bool is_first) {
    PassTotals totals;
    Cells batch;
    for (int64_t window = 0; window < order_->num_windows(); ++window) {
      guarded([&] {
        for (std::size_t i = next_block_++; i < window_blocks_.size(); i = next_block_++)
          read(blocks_[window_blocks_[i]], sizes_[window_blocks_[i]], results_[i]);
      });
      barrier_.arrive_and_wait();
      if (problem_) return;  // all threads see it: it is only written before the barrier
      guarded([&] {
        const auto size = static_cast<std::size_t>(options_.batch_cells);
        for (std::size_t first = next_cell_.fetch_add(size); first < shuffle_.size();
             first = next_cell_.fetch_add(size))
          deliver(first, std::min(size, shuffle_.size() - first), batch, totals);
      });
      barrier_.arrive_and_wait();
      if (problem_) return;
      if (is_first && window + 1 < order_->num_windows()) begin_window(window + 1);
      barrier_.arrive_and_wait();
    }
    const std::scoped_lock lock(mutex_);
    totals_.cells += totals.cells;
    totals_.entries += totals.entries;
    totals_.checksum += totals.checksum;
  }

  template <class Work>
  void guarded(const Work& work) {
    try {
      work();
    } catch (...) {
      const std::scoped_lock lock(mutex_);
      if (!problem_) problem_ = std::current_exception();
      next_block_ = window_blocks_.size();
    }
  }

  void deliver(std::size_t first, std::size_t count, Cells& batch, PassTotals& totals) const {
    batch.begin.assign(1, 0);
    batch.ids.clear();
    batch.values.clear();
    for (std::size_t i = first; i < first + count; ++i) {
      const uint32_t cell = shuffle_[i];
      const auto block = static_cast<std::size_t>(
          std::upper_bound(block_begin_.begin(), block_begin_.end(), cell) - block_begin_.begin() - 1);
      const Cells& from = results_[block];
      const auto at = static_cast<std::size_t>(cell - block_begin_[block]);
      const auto begin = from.begin[at], end = from.begin[at + 1];
      batch.ids.insert(batch.ids.end(), from.ids.begin() + begin, from.ids.begin() + end);
      if (!from.values.empty())
        batch.values.insert(batch.values.end(), from.values.begin() + begin, from.values.begin() + end);
      batch.begin.push_back(static_cast<int64_t>(batch.ids.size()));
    }
    totals.cells += static_cast<int64_t>(count);
    totals.entries += batch.begin.back();
    totals.checksum =
        std::accumulate(batch.ids.begin(), batch.ids.end(), totals.checksum,
                        [](uint64_t sum, int32_t id) { return sum + static_cast<uint32_t>(id); });
  }

  const ShuffledPassOptions options_;
  std::vector<Block> blocks_;
  std::vector<int32_t> sizes_;
  std::optional<data::EpochOrder> order_;
  std::vector<uint32_t> window_blocks_, block_begin_, shuffle_;  // of the window at hand
  std::vector<Cells> results_;
  std::atomic<std::size_t> next_block_ = 0, next_cell_ = 0;
  std::barrier<> barrier_;
  std::mutex mutex_;  // guards problem_ and totals_
  std::exception_ptr problem_;
  PassTotals totals_;
};

}  // namespace

PassTotals pass_over_values(const std::vector<data::CellSource>& sources,
                            const ShuffledPassOptions& options) {
  return Pass(sources, options).run([&sources]() -> ReadBlock {
    return [&sources, scratch = std::make_shared<data::CellBlock>()](const Block& block, int64_t num_rows,
                                                                     Cells& out) {
      scratch->indptr.swap(out.begin);  // the block is read into the memory of the result, and given back
      scratch->genes.swap(out.ids);
      scratch->values.swap(out.values);
      sources[block.source].matrix->read_into(block.first_row, num_rows, *scratch);
      scratch->indptr.swap(out.begin);
      scratch->genes.swap(out.ids);
      scratch->values.swap(out.values);
    };
  });
}

PassTotals pass_over_tokens(const std::vector<data::CellSource>& sources,
                            const std::vector<data::GeneMap>& maps, const data::Vocabulary& vocabulary,
                            const data::TokenizerConfig& config, const ShuffledPassOptions& options) {
  return Pass(sources, options).run([&]() -> ReadBlock {
    return [&, scratch = std::make_shared<data::CellBlock>(),
            tokenizer = std::make_shared<data::Tokenizer>(vocabulary, config)](const Block& block,
                                                                               int64_t num_rows, Cells& out) {
      sources[block.source].matrix->read_into(block.first_row, num_rows, *scratch);
      out.begin.assign(1, 0);
      out.ids.clear();
      for (std::size_t row = 0; row < static_cast<std::size_t>(num_rows); ++row) {
        const auto begin = static_cast<std::size_t>(scratch->indptr[row]);
        const auto count = static_cast<std::size_t>(scratch->indptr[row + 1]) - begin;
        tokenizer->append(maps[block.source], std::span(scratch->genes).subspan(begin, count),
                          std::span(scratch->values).subspan(begin, count), out.ids);
        out.begin.push_back(static_cast<int64_t>(out.ids.size()));
      }
    };
  });
}

PassTotals pass_over_cache(const std::vector<data::CellSource>& sources, const data::TokenCache& cache,
                           const ShuffledPassOptions& options) {
  return Pass(sources, options).run([&]() -> ReadBlock {
    return [&](const Block& block, int64_t num_rows, Cells& out) {
      const auto source = static_cast<int64_t>(block.source);
      out.begin.assign(1, 0);
      out.ids.clear();
      for (int64_t row = block.first_row; row < block.first_row + num_rows; ++row) {
        cache.append(source, row, out.ids);
        out.begin.push_back(static_cast<int64_t>(out.ids.size()));
      }
      cache.forget(source, block.first_row, num_rows);
    };
  });
}

}  // namespace scrna::bench
