#include "lib/bench/data_bench.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <utility>

#include "lib/bench/shuffled_pass.h"
#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/random.h"
#include "lib/data/build_vocabulary.h"
#include "lib/data/loader.h"

namespace scrna::bench {
namespace {

constexpr int64_t kContexts[] = {2048, 8192};

// Linux forgets the peak when asked (proc(5), clear_refs); elsewhere it stays that of the whole process.
void forget_peak_memory() { std::ofstream("/proc/self/clear_refs") << "5"; }
int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    int64_t kilobytes = 0;
    if (word == "VmHWM:" && status >> kilobytes) return kilobytes << 10;
  }
  return 0;
}

DataBenchRow measure(DataBenchRow row, int64_t repeats,
                     const std::function<PassTotals(int64_t repeat)>& pass) {
  forget_peak_memory();
  for (int64_t i = 0; i < repeats; ++i) {
    const double start = now_seconds();
    const PassTotals totals = pass(i);
    row.seconds.push_back(now_seconds() - start);
    row.cells = totals.cells;
    row.entries = totals.entries;
  }
  row.peak_resident_bytes = peak_resident_bytes();
  return row;
}

// Each a read of its own, as a loader without blocks does it.
PassTotals single_rows(const std::vector<data::CellSource>& sources, int64_t count, uint64_t seed,
                       int64_t repeat) {
  PassTotals totals;
  data::CellBlock block;
  const RandomStream random(seed, RandomPurpose::kShuffle, static_cast<uint64_t>(repeat), 0);
  for (int64_t i = 0; i < count; ++i) {
    const auto draw = static_cast<uint64_t>(i) * 2;
    const data::CountMatrix& matrix = *sources[random.below(sources.size(), draw)].matrix;
    if (matrix.num_cells() == 0) continue;
    matrix.read_into(static_cast<int64_t>(random.below(static_cast<uint64_t>(matrix.num_cells()), draw + 1)),
                     1, block);
    ++totals.cells;
    totals.entries += std::ssize(block.genes);
  }
  return totals;
}

// Micro-batches of a run with one epoch's cells, from the start of the loader's threads to the last of them.
PassTotals micro_batches(const data::Corpus& corpus, const DataBenchOptions& options, int64_t workers,
                         int64_t repeat) {
  data::TrainLoader loader(corpus, {.seed = options.seed + static_cast<uint64_t>(repeat),
                                    .global_batch_cells = options.batch_cells,
                                    .tokens_per_micro_batch = 65536,
                                    .shuffle_block_cells = options.block_cells,
                                    .shuffle_window_cells = options.window_cells,
                                    .num_workers = workers});
  PassTotals totals;
  while (totals.cells < corpus.num_training_cells()) {
    const GlobalBatch batch = loader.next();
    totals.cells += batch.num_cells;
    totals.entries += batch.num_tokens;
  }
  return totals;
}

class Bench {
 public:
  Bench(const DataBenchOptions& options, const std::function<void(const DataBenchRow&)>& after_row)
      : options_(options), after_row_(after_row) {
    config_.files = options.files;
    config_.heldout_fraction = 0;
    config_.num_workers = options.max_workers;
  }

  DataBenchResult run() {
    open();
    add({.what = "single rows", .workers = 1},
        [&](int64_t repeat) { return single_rows(sources_, options_.single_rows, options_.seed, repeat); });
    for (const int64_t workers : worker_counts())
      add({.what = "blocks, shuffled", .workers = workers},
          [&](int64_t repeat) { return pass_over_values(sources_, pass_options(workers, repeat)); });
    for (const int64_t context : kContexts) {
      for (const int64_t workers : worker_counts())
        add({.what = "tokenized, shuffled", .workers = workers, .context = context}, [&](int64_t repeat) {
          return pass_over_tokens(sources_, maps_, *vocabulary_, {.max_tokens = context},
                                  pass_options(workers, repeat));
        });
    }
    const data::Corpus corpus(sources_, *vocabulary_, config_, {.max_tokens = kContexts[0]});
    for (const int64_t workers : worker_counts())
      add({.what = "micro-batches", .workers = workers, .context = kContexts[0]},
          [&](int64_t repeat) { return micro_batches(corpus, options_, workers, repeat); });
    if (!options_.cache.empty()) add_cache_rows();
    return std::move(result_);
  }

 private:
  void open() {
    const double start = now_seconds();
    if (!options_.vocabulary.empty()) vocabulary_.emplace(data::Vocabulary::load(options_.vocabulary));
    sources_ = data::open_sources(config_, vocabulary_ ? &*vocabulary_ : nullptr);
    result_.open_seconds = now_seconds() - start;
    if (!vocabulary_) {
      const double begin = now_seconds();
      vocabulary_.emplace(data::build_vocabulary(sources_, 1));
      result_.vocabulary_seconds = now_seconds() - begin;
    }
    for (const data::CellSource& source : sources_) {
      maps_.push_back(data::map_genes(*vocabulary_, source.gene_ids.ids));
      result_.cells += source.matrix->num_cells();
      result_.stored_values += source.matrix->stored_values();
      result_.genes = std::max(result_.genes, source.matrix->num_genes());
      result_.file_bytes += static_cast<int64_t>(std::filesystem::file_size(source.name));
      ++result_.num_files;
    }
    if (result_.cells == 0)
      throw DataError("the {} file(s) hold no cell; there is nothing to measure", sources_.size());
  }

  // In a cache of other cells or tokens than these the corpus is refused.
  void add_cache_rows() {
    data::DataConfig config = config_;
    config.cache = options_.cache;
    const data::TokenizerConfig tokenizer{.max_tokens = kContexts[0]};
    const data::Corpus corpus(sources_, *vocabulary_, config, tokenizer);
    for (const int64_t workers : worker_counts())
      add({.what = "from cache, shuffled", .workers = workers, .context = kContexts[0]}, [&](int64_t repeat) {
        return pass_over_cache(sources_, *corpus.cache(), pass_options(workers, repeat));
      });
    for (const int64_t workers : worker_counts())
      add({.what = "micro-batches, cache", .workers = workers, .context = kContexts[0]},
          [&](int64_t repeat) { return micro_batches(corpus, options_, workers, repeat); });
  }

  [[nodiscard]] std::vector<int64_t> worker_counts() const {
    std::vector<int64_t> counts;
    for (int64_t count = 1; count < options_.max_workers; count *= 2) counts.push_back(count);
    counts.push_back(options_.max_workers);
    return counts;
  }
  [[nodiscard]] ShuffledPassOptions pass_options(int64_t workers, int64_t repeat) const {
    return {.workers = workers,
            .block_cells = options_.block_cells,
            .window_cells = options_.window_cells,
            .batch_cells = options_.batch_cells,
            .seed = options_.seed,
            .epoch = repeat};
  }
  void add(DataBenchRow row, const std::function<PassTotals(int64_t repeat)>& pass) {
    result_.rows.push_back(measure(std::move(row), options_.repeats, pass));
    if (after_row_) after_row_(result_.rows.back());
  }

  const DataBenchOptions& options_;
  const std::function<void(const DataBenchRow&)>& after_row_;
  data::DataConfig config_;
  std::vector<data::CellSource> sources_;
  std::vector<data::GeneMap> maps_;
  std::optional<data::Vocabulary> vocabulary_;
  DataBenchResult result_;
};

}  // namespace

double DataBenchRow::median_seconds() const {
  std::vector<double> sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  const std::size_t middle = sorted.size() / 2;
  if (sorted.empty()) return 0;
  return sorted.size() % 2 == 1 ? sorted[middle] : 0.5 * (sorted[middle - 1] + sorted[middle]);
}

DataBenchResult bench_data(const DataBenchOptions& options,
                           const std::function<void(const DataBenchRow&)>& after_row) {
  return Bench(options, after_row).run();
}

}  // namespace scrna::bench
