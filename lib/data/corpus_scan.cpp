// What a corpus reads before the first step. Up to data.scan_cells cells: all of them, and everything is
// exact. Beyond: blocks spread evenly over the chosen cells of each file, so that a run begins within seconds
// however large its files are. What must be known of every cell then comes from indptr: cells with fewer
// stored entries than data.min_genes are left out, and no cell has more tokens than entries. What indptr
// cannot tell, that a cell has enough entries but too few genes of the vocabulary, is found when the cell is
// read, and another cell takes its place (loader.h); values are checked then, too. So the order stays a pure
// function of (seed, epoch) and of files and settings, with or without a cache. Dense matrices have no indptr
// and are always read whole. Rejected: reading everything first (25 s per million cells of 2,000 genes on two
// cores, minutes from a cold disk); a scan beside the training, whose findings would change the order of
// cells while it is used; leaving the place of an unusable cell empty, so that steps differ in size and a
// rank may get no cell at all.
#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>
#include <unordered_map>
#include <utility>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/data/corpus.h"

namespace scrna::data {
namespace {

constexpr int64_t kCellsPerScan = 256;
constexpr int64_t kCellsPerLook = 128;    // of a file that is not read whole
constexpr std::size_t kLooksPerFile = 2;  // at least
constexpr std::size_t kNamedMisses = 10;

// What one thread of the scan adds up. Sums of integers: the same whichever thread met which cell.
struct Tally {
  explicit Tally(const std::vector<CellSource>& sources, std::size_t num_tokens)
      : reports(sources.size()),
        missed_counts(sources.size()),
        repeated_entries(sources.size()),
        unusable_cells(sources.size()),
        token_frequencies(num_tokens) {
    for (std::size_t i = 0; i < sources.size(); ++i) {
      missed_counts[i].resize(static_cast<std::size_t>(sources[i].matrix->num_genes()));
    }
  }
  std::vector<TokenizerReport> reports;            // [sources]
  std::vector<std::vector<double>> missed_counts;  // [sources][columns] counts outside the vocabulary
  std::vector<int64_t> repeated_entries;           // [sources]
  std::vector<int64_t> unusable_cells;             // [sources] with too few genes of the vocabulary
  std::vector<int64_t> token_frequencies;          // [V]
  int64_t counted_cells = 0;                       // in token_frequencies
  int64_t longest_cell_tokens = 0;
};

}  // namespace

std::vector<MissedGene> largest_misses(const std::vector<double>& missed_counts,
                                       const std::vector<std::string>& ids) {
  std::unordered_map<std::string_view, double> counts_of;
  for (std::size_t column = 0; column < missed_counts.size(); ++column)
    if (missed_counts[column] > 0) counts_of[ids[column]] += missed_counts[column];
  std::vector<std::pair<double, std::string_view>> misses;
  for (const auto& [id, counts] : counts_of) misses.emplace_back(-counts, id);
  const std::size_t num_named = std::min(kNamedMisses, misses.size());
  std::partial_sort(misses.begin(), misses.begin() + static_cast<std::ptrdiff_t>(num_named), misses.end());
  std::vector<MissedGene> largest;
  for (std::size_t i = 0; i < num_named; ++i)
    largest.push_back({std::string(misses[i].second), -misses[i].first});
  return largest;
}

void Corpus::plan_scan() {
  int64_t num_chosen = 0;
  for (const SourceReport& report : reports_) num_chosen += report.chosen_cells;
  looks_.resize(sources_.size());
  is_whole_.assign(sources_.size(), true);
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const int64_t rows = reports_[i].cells;
    const auto add_look = [&](int64_t first, int64_t cells) {
      if (const int64_t count = std::min(cells, rows - first); sources_[i].any_chosen(first, count))
        looks_[i].push_back({.first_row = first, .num_rows = count});
    };
    const bool is_dense = rows > 0 && sources_[i].matrix->layout() == MatrixLayout::kDense;
    if (num_chosen > config_.scan_cells && !is_dense && reports_[i].chosen_cells > 0) {
      for (int64_t first = 0; first < rows; first += kCellsPerLook) add_look(first, kCellsPerLook);
      const double part = static_cast<double>(config_.scan_cells) / static_cast<double>(num_chosen);
      const auto wanted = std::max(
          kLooksPerFile, static_cast<std::size_t>(part * static_cast<double>(std::ssize(looks_[i]))));
      is_whole_[i] = wanted >= looks_[i].size();
      if (is_whole_[i]) continue;
      std::vector<Look> spread;
      for (std::size_t look = 0; look < wanted; ++look)
        spread.push_back(looks_[i][look * (looks_[i].size() - 1) / (wanted - 1)]);
      looks_[i] = std::move(spread);
    } else {
      for (int64_t first = 0; first < rows; first += kCellsPerScan) add_look(first, kCellsPerScan);
    }
  }
}

void Corpus::scan(const Progress& progress) {
  struct Task {
    std::size_t source;
    Look look;
  };
  std::vector<Task> tasks;
  int64_t num_cells = 0, total_cells = 0;
  for (std::size_t source = 0; source < sources_.size(); ++source) {
    total_cells += reports_[source].cells;
    for (const Look& look : looks_[source]) {
      tasks.push_back({source, look});
      num_cells += look.num_rows;
    }
  }
  const double start = now_seconds();
  std::atomic<std::size_t> next_task = 0;
  std::atomic<int64_t> done_cells = 0;
  std::exception_ptr problem;
  std::mutex mutex;  // guards problem and the sums of the tallies
  Tally total(sources_, static_cast<std::size_t>(vocabulary_.size()));

  const auto work = [&](bool reports_progress) {
    try {
      Tokenizer tokenizer(vocabulary_, tokenizer_config_);
      Tally tally(sources_, static_cast<std::size_t>(vocabulary_.size()));
      std::vector<int32_t> tokens;
      CellBlock block;
      for (std::size_t at = next_task++; at < tasks.size(); at = next_task++) {
        const Task& task = tasks[at];
        const auto [first_row, num_rows] = task.look;
        const GeneMap& map = gene_maps_[task.source];
        const CellSource& source = sources_[task.source];
        source.matrix->read_into(first_row, num_rows, block);
        check_values(source, block);
        tally.repeated_entries[task.source] += block.num_repeated;
        for (int64_t i = 0; i < num_rows; ++i) {
          if (!source.is_chosen(first_row + i)) continue;
          const auto begin = static_cast<std::size_t>(block.indptr[static_cast<std::size_t>(i)]);
          const auto count = static_cast<std::size_t>(block.indptr[static_cast<std::size_t>(i) + 1]) - begin;
          tokens.clear();
          const CellSummary cell = tokenizer.tokenize(map, std::span(block.genes).subspan(begin, count),
                                                      std::span(block.values).subspan(begin, count), tokens);
          tally.reports[task.source].add(cell);
          if (cell.vocabulary_counts < cell.counts) {
            for (std::size_t j = begin; j < begin + count; ++j) {
              const auto column = static_cast<std::size_t>(block.genes[j]);
              if (map.tokens[column] == Vocabulary::kUnk && block.values[j] > 0)
                tally.missed_counts[task.source][column] += block.values[j];
            }
          }
          CellRole& role = roles_[task.source][static_cast<std::size_t>(first_row + i)];
          if (cell.vocabulary_genes < std::max<int64_t>(1, config_.min_genes)) {
            ++tally.unusable_cells[task.source];
            if (is_whole_[task.source]) role = CellRole::kLeftOut;
            continue;
          }
          if (role == CellRole::kLeftOut) continue;
          tally.longest_cell_tokens = std::max(tally.longest_cell_tokens, std::ssize(tokens));
          if (role == CellRole::kTraining) {
            for (const int32_t token : tokens) ++tally.token_frequencies[static_cast<std::size_t>(token)];
            ++tally.counted_cells;
          }
        }
        const int64_t done = done_cells += num_rows;
        if (reports_progress && progress) progress("counting tokens", done, num_cells);
      }
      const std::scoped_lock lock(mutex);
      for (std::size_t i = 0; i < sources_.size(); ++i) {
        total.reports[i].add(tally.reports[i]);
        total.repeated_entries[i] += tally.repeated_entries[i];
        total.unusable_cells[i] += tally.unusable_cells[i];
        std::transform(tally.missed_counts[i].begin(), tally.missed_counts[i].end(),
                       total.missed_counts[i].begin(), total.missed_counts[i].begin(), std::plus<>());
      }
      std::transform(tally.token_frequencies.begin(), tally.token_frequencies.end(),
                     total.token_frequencies.begin(), total.token_frequencies.begin(), std::plus<>());
      total.counted_cells += tally.counted_cells;
      total.longest_cell_tokens = std::max(total.longest_cell_tokens, tally.longest_cell_tokens);
    } catch (...) {
      const std::scoped_lock lock(mutex);
      if (!problem) problem = std::current_exception();
      next_task = tasks.size();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (int64_t i = 1; i < config_.num_workers; ++i) threads.emplace_back(work, false);
    work(true);
  }
  if (problem) std::rethrow_exception(problem);
  token_frequencies_ = std::move(total.token_frequencies);
  num_counted_cells_ = total.counted_cells;
  longest_cell_tokens_ = std::max(total.longest_cell_tokens, most_tokens_by_entries());
  if (num_cells < total_cells && !is_whole()) {
    const double seconds = now_seconds() - start;
    log::info(
        "[data] looked at {} of {} cells in {:.1f} s; what is said of their genes and counts is estimated "
        "from "
        "them, and each cell is checked when it is read. data.scan_cells={} reads all before the first step "
        "(about {:.0f} s)",
        num_cells, total_cells, seconds, total_cells,
        seconds * static_cast<double>(total_cells) / static_cast<double>(std::max<int64_t>(1, num_cells)));
  }
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    reports_[i].tokens = total.reports[i];
    reports_[i].repeated_entries = total.repeated_entries[i];
    reports_[i].unusable_cells = total.unusable_cells[i];
    reports_[i].largest_misses = largest_misses(total.missed_counts[i], sources_[i].gene_ids.ids);
    check_hit_rate(i);
  }
}

double Corpus::mean_cell_tokens() const {
  const auto tokens = std::accumulate(token_frequencies_.begin(), token_frequencies_.end(), int64_t{0});
  return static_cast<double>(tokens) / static_cast<double>(std::max<int64_t>(1, num_counted_cells_));
}

int64_t Corpus::most_tokens_by_entries() const {
  if (most_stored_entries_ == 0) return 0;
  const auto known = static_cast<int64_t>(vocabulary_.genes().size());
  return std::min(tokenizer_config_.max_tokens,
                  std::min(most_stored_entries_, known) + (tokenizer_config_.add_cls ? 1 : 0));
}

}  // namespace scrna::data
