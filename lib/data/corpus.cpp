#include "lib/data/corpus.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <filesystem>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/core/random.h"
#include "lib/data/split.h"

namespace scrna::data {
namespace {

constexpr int64_t kCellsPerScan = 256;
constexpr std::size_t kNamedMisses = 5;

uint32_t key_of(const CellSource& source) {
  const std::string identity =
      fmt::format("{}|{}|{}|{}", std::filesystem::path(source.name).filename().string(),
                  source.matrix->name(), source.matrix->num_cells(), source.matrix->num_genes());
  uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const char character : identity)
    hash = (hash ^ static_cast<unsigned char>(character)) * 0x100000001b3ULL;
  return static_cast<uint32_t>(mix64(hash));
}

std::string first_genes(const std::vector<std::string>& ids) {
  return fmt::format(
      "{}", fmt::join(ids.begin(), ids.begin() + std::min<std::ptrdiff_t>(3, std::ssize(ids)), ", "));
}

// What one thread of the scan adds up. Sums of integers: the same whichever thread met which cell.
struct Tally {
  explicit Tally(const std::vector<CellSource>& sources, std::size_t num_tokens)
      : reports(sources.size()), missed_counts(sources.size()), token_frequencies(num_tokens) {
    for (std::size_t i = 0; i < sources.size(); ++i) {
      missed_counts[i].resize(static_cast<std::size_t>(sources[i].matrix->num_genes()));
    }
  }
  std::vector<TokenizerReport> reports;            // [sources]
  std::vector<std::vector<double>> missed_counts;  // [sources][columns] counts outside the vocabulary
  std::vector<int64_t> token_frequencies;          // [V]
  int64_t longest_cell_tokens = 0;
};

struct ScanTask {
  std::size_t source;
  int64_t first_row, num_rows;
};

}  // namespace

Corpus::Corpus(std::vector<CellSource> sources, Vocabulary vocabulary, const DataConfig& data,
               const TokenizerConfig& tokenizer, const Progress& progress)
    : sources_(std::move(sources)),
      vocabulary_(std::move(vocabulary)),
      config_(data),
      tokenizer_config_(tokenizer) {
  std::unordered_set<uint32_t> keys;
  for (const CellSource& source : sources_) {
    GeneMap map = map_genes(vocabulary_, source.gene_ids.ids);
    if (map.num_known == 0) {
      throw DataError(
          "{}: no gene of the vocabulary: its {} genes ({}, ... from {}) match none of the vocabulary's {} "
          "({}, {}, "
          "...). Set data.gene_column to the var column that holds ids of that kind, or use another "
          "vocabulary",
          source.name, source.gene_ids.ids.size(), first_genes(source.gene_ids.ids), source.gene_ids.source,
          vocabulary_.genes().size(), vocabulary_.genes().front().id, vocabulary_.genes().back().id);
    }
    if (source.matrix->num_cells() > int64_t{0xffffffff}) {
      throw DataError("{}: {} cells; at most {} in one file", source.name, source.matrix->num_cells(),
                      0xffffffffU);
    }
    reports_.push_back({.name = source.name,
                        .matrix = source.matrix->name(),
                        .cells = source.matrix->num_cells(),
                        .genes = source.matrix->num_genes(),
                        .known_genes = map.num_known,
                        .tokens = {}});
    gene_maps_.push_back(std::move(map));
    uint32_t key = key_of(source);
    while (!keys.insert(key).second) ++key;
    source_keys_.push_back(key);
  }
  assign_roles();
  scan(progress);
  check_split();
}

uint64_t Corpus::cell_id(int32_t source, int64_t row) const {
  return (uint64_t{source_keys_[static_cast<std::size_t>(source)]} << 32) | static_cast<uint64_t>(row);
}

void Corpus::assign_roles() {
  std::unordered_map<std::string, int64_t> cells_of_group;
  for (const CellSource& source : sources_) {
    roles_.emplace_back(static_cast<std::size_t>(source.matrix->num_cells()), CellRole::kTraining);
    for (const int32_t code : source.groups.codes) {
      if (code >= 0) ++cells_of_group[source.groups.categories[static_cast<std::size_t>(code)]];
    }
  }
  if (config_.heldout_fraction <= 0) return;
  std::unordered_set<std::string> groups;
  if (!config_.heldout_column.empty()) {
    groups = choose_heldout_groups(cells_of_group, config_.heldout_fraction, config_.heldout_seed,
                                   config_.heldout_column);
    log::info("[data] held out: {} of {} groups of '{}'", groups.size(), cells_of_group.size(),
              config_.heldout_column);
  }
  for (std::size_t source = 0; source < sources_.size(); ++source) {
    const CategoryColumn& column = sources_[source].groups;
    std::vector<CellRole>& roles = roles_[source];
    for (std::size_t row = 0; row < roles.size(); ++row) {
      const bool is_heldout =
          config_.heldout_column.empty()
              ? split_position(config_.heldout_seed,
                               cell_id(static_cast<int32_t>(source), static_cast<int64_t>(row))) <
                    config_.heldout_fraction
              : column.codes[row] >= 0 &&
                    groups.contains(column.categories[static_cast<std::size_t>(column.codes[row])]);
      if (is_heldout) roles[row] = CellRole::kHeldout;
    }
  }
}

void Corpus::scan(const Progress& progress) {
  std::vector<ScanTask> tasks;
  int64_t num_cells = 0;
  for (std::size_t source = 0; source < sources_.size(); ++source) {
    const int64_t rows = reports_[source].cells;
    for (int64_t first = 0; first < rows; first += kCellsPerScan) {
      tasks.push_back({source, first, std::min(kCellsPerScan, rows - first)});
    }
    num_cells += rows;
  }
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
      for (std::size_t at = next_task++; at < tasks.size(); at = next_task++) {
        const ScanTask& task = tasks[at];
        const GeneMap& map = gene_maps_[task.source];
        const CellBlock block = sources_[task.source].matrix->read(task.first_row, task.num_rows);
        check_values(sources_[task.source], block);
        for (int64_t i = 0; i < task.num_rows; ++i) {
          const auto begin = static_cast<std::size_t>(block.indptr[static_cast<std::size_t>(i)]);
          const auto count = static_cast<std::size_t>(block.indptr[static_cast<std::size_t>(i) + 1]) - begin;
          tokens.clear();
          const CellSummary cell = tokenizer.tokenize(map, std::span(block.genes).subspan(begin, count),
                                                      std::span(block.values).subspan(begin, count), tokens);
          tally.reports[task.source].add(cell);
          CellRole& role = roles_[task.source][static_cast<std::size_t>(task.first_row + i)];
          if (cell.vocabulary_genes < config_.min_genes) role = CellRole::kLeftOut;
          if (role == CellRole::kLeftOut) continue;
          tally.longest_cell_tokens = std::max(tally.longest_cell_tokens, std::ssize(tokens));
          if (role == CellRole::kTraining) {
            for (const int32_t token : tokens) ++tally.token_frequencies[static_cast<std::size_t>(token)];
          }
        }
        if (map.num_known < std::ssize(map.tokens)) {
          for (std::size_t i = 0; i < block.genes.size(); ++i) {
            const auto column = static_cast<std::size_t>(block.genes[i]);
            if (map.tokens[column] == Vocabulary::kUnk && block.values[i] > 0) {
              tally.missed_counts[task.source][column] += block.values[i];
            }
          }
        }
        const int64_t done = done_cells += task.num_rows;
        if (reports_progress && progress) progress("counting tokens", done, num_cells);
      }
      const std::scoped_lock lock(mutex);
      for (std::size_t i = 0; i < sources_.size(); ++i) {
        total.reports[i].add(tally.reports[i]);
        std::transform(tally.missed_counts[i].begin(), tally.missed_counts[i].end(),
                       total.missed_counts[i].begin(), total.missed_counts[i].begin(), std::plus<>());
      }
      std::transform(tally.token_frequencies.begin(), tally.token_frequencies.end(),
                     total.token_frequencies.begin(), total.token_frequencies.begin(), std::plus<>());
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
  longest_cell_tokens_ = total.longest_cell_tokens;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    reports_[i].tokens = total.reports[i];
    check_hit_rate(i, total.missed_counts[i]);
  }
}

void Corpus::check_hit_rate(std::size_t source, const std::vector<double>& missed_counts) const {
  const SourceReport& report = reports_[source];
  if (report.tokens.sum.counts == 0) {
    throw DataError("{}: matrix {} holds no value above zero; there is nothing to train on", report.name,
                    report.matrix);
  }
  if (report.tokens.count_hit_rate() >= config_.min_gene_hit_rate) return;
  std::vector<std::size_t> columns(missed_counts.size());
  for (std::size_t i = 0; i < columns.size(); ++i) columns[i] = i;
  const std::size_t num_named = std::min(kNamedMisses, columns.size());
  std::partial_sort(columns.begin(), columns.begin() + static_cast<std::ptrdiff_t>(num_named), columns.end(),
                    [&](std::size_t a, std::size_t b) { return missed_counts[a] > missed_counts[b]; });
  std::string misses;
  for (std::size_t i = 0; i < num_named; ++i) {
    misses += fmt::format("{}{} ({:.1f} %)", i == 0 ? "" : ", ", sources_[source].gene_ids.ids[columns[i]],
                          100 * missed_counts[columns[i]] / report.tokens.sum.counts);
  }
  throw DataError(
      "{}: only {:.1f} % of its counts are in genes of the vocabulary (data.min_gene_hit_rate asks for "
      "{:.1f} %; {} of "
      "{} genes are known). The largest missing: {}. Is it another species or another kind of gene id? Set "
      "data.gene_column, use another vocabulary, or lower data.min_gene_hit_rate",
      report.name, 100 * report.tokens.count_hit_rate(), 100 * config_.min_gene_hit_rate, report.known_genes,
      report.genes, misses);
}

void Corpus::check_split() {
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    SourceReport& report = reports_[i];
    report.training_cells = std::count(roles_[i].begin(), roles_[i].end(), CellRole::kTraining);
    report.heldout_cells = std::count(roles_[i].begin(), roles_[i].end(), CellRole::kHeldout);
    num_training_cells_ += report.training_cells;
    num_heldout_cells_ += report.heldout_cells;
    const TokenizerReport& tokens = report.tokens;
    log::info(
        "[data] {}: {} cells to train on, {} held out, {} left out (fewer than {} genes); vocabulary hit "
        "rate {:.1f} % "
        "of genes, {:.1f} % of counts; cut at {} tokens: {:.1f} % of genes, {:.1f} % of counts",
        report.name, report.training_cells, report.heldout_cells,
        report.cells - report.training_cells - report.heldout_cells, config_.min_genes,
        100 * tokens.gene_hit_rate(), 100 * tokens.count_hit_rate(), tokenizer_config_.max_tokens,
        100 * tokens.truncated_genes(), 100 * tokens.truncated_counts());
  }
  const TokenizerReport total = total_report();
  if (num_training_cells_ + num_heldout_cells_ == 0) {
    throw DataError(
        "no usable cell: all {} cells express fewer than {} genes of the vocabulary (data.min_genes), on "
        "average {:.1f}",
        total.cells, config_.min_genes,
        static_cast<double>(total.sum.vocabulary_genes) /
            static_cast<double>(std::max<int64_t>(total.cells, 1)));
  }
  if (num_training_cells_ == 0) {
    throw DataError(
        "no cell is left to train on: all {} usable cells are held out; lower data.heldout_fraction",
        num_heldout_cells_);
  }
  if (config_.heldout_fraction > 0 && num_heldout_cells_ == 0) {
    throw DataError(
        "no cell is held out: data.heldout_fraction is {} of {} usable cells; raise it, or set it to 0 to "
        "train "
        "without evaluation",
        config_.heldout_fraction, num_training_cells_);
  }
}

void Corpus::check_unchanged(int32_t source, int64_t num_tokens) const {
  const int64_t num_special = tokenizer_config_.add_cls ? 1 : 0;
  if (num_tokens > num_special && num_tokens <= longest_cell_tokens_) return;
  throw DataError(
      "{}: has changed since it was opened (a cell has {} tokens now, all had 1 to {}); start again, and do "
      "not "
      "write to files that are in use",
      sources_[static_cast<std::size_t>(source)].name, num_tokens, longest_cell_tokens_);
}

TokenizerReport Corpus::total_report() const {
  TokenizerReport total;
  for (const SourceReport& report : reports_) total.add(report.tokens);
  return total;
}

std::vector<CellRange> Corpus::ranges(CellRole role, int64_t block_cells) const {
  std::vector<CellRange> ranges;
  for (std::size_t source = 0; source < roles_.size(); ++source) {
    const std::vector<CellRole>& roles = roles_[source];
    for (int64_t first = 0; first < std::ssize(roles); first += block_cells) {
      const int64_t rows = std::min(block_cells, std::ssize(roles) - first);
      const auto num_cells = std::count(roles.begin() + first, roles.begin() + first + rows, role);
      if (num_cells == 0) continue;
      ranges.push_back({.source = static_cast<int32_t>(source),
                        .num_rows = static_cast<int32_t>(rows),
                        .first_row = first,
                        .num_cells = static_cast<int32_t>(num_cells)});
    }
  }
  return ranges;
}

}  // namespace scrna::data
