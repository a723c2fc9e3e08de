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
constexpr std::size_t kNamedMisses = 10;

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
      : reports(sources.size()),
        missed_counts(sources.size()),
        repeated_entries(sources.size()),
        token_frequencies(num_tokens) {
    for (std::size_t i = 0; i < sources.size(); ++i) {
      missed_counts[i].resize(static_cast<std::size_t>(sources[i].matrix->num_genes()));
    }
  }
  std::vector<TokenizerReport> reports;            // [sources]
  std::vector<std::vector<double>> missed_counts;  // [sources][columns] counts outside the vocabulary
  std::vector<int64_t> repeated_entries;           // [sources]
  std::vector<int64_t> token_frequencies;          // [V]
  int64_t longest_cell_tokens = 0;
};

// "MALAT1 (2.1 %), ..." of all counts of the file.
std::string text_of(const std::vector<MissedGene>& misses, double counts) {
  std::string text;
  for (const MissedGene& miss : misses) {
    text += fmt::format("{}{} ({:.1f} %)", text.empty() ? "" : ", ",
                        miss.id.empty() ? "genes without id" : miss.id, 100 * miss.counts / counts);
  }
  return text;
}

struct ScanTask {
  std::size_t source;
  int64_t first_row, num_rows;
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

Corpus::Corpus(std::vector<CellSource> sources, Vocabulary vocabulary, const DataConfig& data,
               const TokenizerConfig& tokenizer, const Progress& progress)
    : sources_(std::move(sources)),
      vocabulary_(std::move(vocabulary)),
      config_(data),
      tokenizer_config_(tokenizer) {
  std::unordered_set<uint32_t> keys;
  for (const CellSource& source : sources_) {
    GeneMap map = map_genes(vocabulary_, source.gene_ids.ids);
    if (map.num_known == 0 && source.any_chosen(0, source.matrix->num_cells())) {
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
                        .chosen_cells = source.chosen.empty()
                                            ? source.matrix->num_cells()
                                            : std::count(source.chosen.begin(), source.chosen.end(), true),
                        .genes = source.matrix->num_genes(),
                        .known_genes = map.num_known,
                        .tokens = {}});
    gene_maps_.push_back(std::move(map));
    uint32_t key = key_of(source);
    while (!keys.insert(key).second) ++key;
    source_keys_.push_back(key);
  }
  assign_roles();
  if (config_.cache.empty()) {
    scan(progress);
  } else {
    take_from_cache();
  }
  check_split();
}

uint64_t Corpus::cell_id(int32_t source, int64_t row) const {
  return (uint64_t{source_keys_[static_cast<std::size_t>(source)]} << 32) | static_cast<uint64_t>(row);
}

void Corpus::assign_roles() {
  for (const CellSource& source : sources_) {
    roles_.emplace_back(static_cast<std::size_t>(source.matrix->num_cells()), CellRole::kTraining);
    for (std::size_t row = 0; row < source.chosen.size(); ++row) {
      if (!source.chosen[row]) roles_.back()[row] = CellRole::kLeftOut;
    }
  }
  if (config_.heldout_fraction <= 0) return;
  const bool by_column = !config_.heldout_column.empty();
  if (!by_column && !config_.heldout_whole_files) {
    set_heldout([&](std::size_t source, std::size_t row) {
      return split_position(config_.heldout_seed,
                            cell_id(static_cast<int32_t>(source), static_cast<int64_t>(row))) <
             config_.heldout_fraction;
    });
    return;
  }
  const std::string unit = by_column ? fmt::format("groups of '{}'", config_.heldout_column) : "files";
  // The group of a cell; "" for none. A file's name may repeat and folders move: its key is its own.
  std::vector<std::string> keys;
  for (const uint32_t key : source_keys_) keys.push_back(fmt::format("{:08x}", key));
  const std::string none;
  const auto group_of = [&](std::size_t source, std::size_t row) -> const std::string& {
    if (!by_column) return keys[source];
    const CategoryColumn& column = sources_[source].groups;
    return column.codes[row] < 0 ? none : column.categories[static_cast<std::size_t>(column.codes[row])];
  };
  std::unordered_map<std::string, int64_t> cells_of_group;
  for (std::size_t source = 0; source < roles_.size(); ++source) {
    for (std::size_t row = 0; row < roles_[source].size(); ++row) {
      if (roles_[source][row] == CellRole::kLeftOut) continue;
      if (const std::string& group = group_of(source, row); !group.empty()) ++cells_of_group[group];
    }
  }
  const std::unordered_set<std::string> groups =
      choose_heldout_groups(cells_of_group, config_.heldout_fraction, config_.heldout_seed,
                            by_column ? "data.heldout_column" : "data.heldout_whole_files", unit);
  log::info("[data] held out: {} of {} {}", groups.size(), cells_of_group.size(), unit);
  set_heldout([&](std::size_t source, std::size_t row) { return groups.contains(group_of(source, row)); });
}

void Corpus::set_heldout(const std::function<bool(std::size_t source, std::size_t row)>& is_heldout) {
  for (std::size_t source = 0; source < roles_.size(); ++source) {
    for (std::size_t row = 0; row < roles_[source].size(); ++row) {
      CellRole& role = roles_[source][row];
      if (role == CellRole::kTraining && is_heldout(source, row)) role = CellRole::kHeldout;
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
      CellBlock block;
      for (std::size_t at = next_task++; at < tasks.size(); at = next_task++) {
        const ScanTask& task = tasks[at];
        const GeneMap& map = gene_maps_[task.source];
        const CellSource& source = sources_[task.source];
        if (!source.any_chosen(task.first_row, task.num_rows)) {
          done_cells += task.num_rows;
          continue;
        }
        source.matrix->read_into(task.first_row, task.num_rows, block);
        check_values(source, block);
        tally.repeated_entries[task.source] += block.num_repeated;
        for (int64_t i = 0; i < task.num_rows; ++i) {
          if (!source.is_chosen(task.first_row + i)) continue;
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
          CellRole& role = roles_[task.source][static_cast<std::size_t>(task.first_row + i)];
          if (cell.vocabulary_genes < config_.min_genes) role = CellRole::kLeftOut;
          if (role == CellRole::kLeftOut) continue;
          tally.longest_cell_tokens = std::max(tally.longest_cell_tokens, std::ssize(tokens));
          if (role == CellRole::kTraining) {
            for (const int32_t token : tokens) ++tally.token_frequencies[static_cast<std::size_t>(token)];
          }
        }
        const int64_t done = done_cells += task.num_rows;
        if (reports_progress && progress) progress("counting tokens", done, num_cells);
      }
      const std::scoped_lock lock(mutex);
      for (std::size_t i = 0; i < sources_.size(); ++i) {
        total.reports[i].add(tally.reports[i]);
        total.repeated_entries[i] += tally.repeated_entries[i];
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
    reports_[i].repeated_entries = total.repeated_entries[i];
    reports_[i].largest_misses = largest_misses(total.missed_counts[i], sources_[i].gene_ids.ids);
    check_hit_rate(i);
  }
}

void Corpus::check_hit_rate(std::size_t source) const {
  const SourceReport& report = reports_[source];
  if (report.chosen_cells == 0) return;
  const double counts = report.tokens.sum.counts;
  if (counts == 0) {
    throw DataError("{}: matrix {} holds no value above zero{}; there is nothing to train on", report.name,
                    report.matrix, report.chosen_cells < report.cells ? " in the cells of data.filter" : "");
  }
  if (report.tokens.count_hit_rate() >= config_.min_gene_hit_rate) return;
  throw DataError(
      "{}: only {:.1f} % of its counts are in genes of the vocabulary (data.min_gene_hit_rate asks for "
      "{:.1f} %; {} of {} genes are known). The largest missing: {}. Is it another species or another kind "
      "of gene "
      "id? Set data.gene_column or data.gene_map, use another vocabulary, or lower data.min_gene_hit_rate",
      report.name, 100 * report.tokens.count_hit_rate(), 100 * config_.min_gene_hit_rate, report.known_genes,
      report.genes, text_of(report.largest_misses, counts));
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
        "[data] {}: {}, {} left out (fewer than {} genes){}; vocabulary hit rate {:.1f} % of genes, {:.1f} % "
        "of counts; cut at {} tokens: {:.1f} % of genes, {:.1f} % of counts",
        report.name,
        config_.heldout_fraction > 0
            ? fmt::format("{} cells to train on, {} held out", report.training_cells, report.heldout_cells)
            : fmt::format("{} cells", report.training_cells),
        report.chosen_cells - report.training_cells - report.heldout_cells, config_.min_genes,
        report.chosen_cells == report.cells
            ? ""
            : fmt::format(", {} not chosen by data.filter", report.cells - report.chosen_cells),
        100 * tokens.gene_hit_rate(), 100 * tokens.count_hit_rate(), tokenizer_config_.max_tokens,
        100 * tokens.truncated_genes(), 100 * tokens.truncated_counts());
    if (!report.largest_misses.empty()) {
      log::info("[data] {}: {} of {} genes are in the vocabulary; the largest that are not: {}", report.name,
                report.known_genes, report.genes, text_of(report.largest_misses, tokens.sum.counts));
    }
    if (report.repeated_entries > 0) {
      log::warning("[data] {}: {} entries of {} repeat a gene of their cell; they were summed", report.name,
                   report.repeated_entries, report.matrix);
    }
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
