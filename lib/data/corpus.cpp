#include "lib/data/corpus.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/core/random.h"
#include "lib/data/split.h"

namespace scrna::data {
namespace {

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

// "MALAT1 (2.1 %), ..." of all counts of the file.
std::string text_of(const std::vector<MissedGene>& misses, double counts) {
  std::string text;
  for (const MissedGene& miss : misses) {
    text += fmt::format("{}{} ({:.1f} %)", text.empty() ? "" : ", ",
                        miss.id.empty() ? "genes without id" : miss.id, 100 * miss.counts / counts);
  }
  return text;
}

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
  plan_scan();
  assign_roles();
  if (config_.cache.empty()) {
    scan(progress);
  } else {
    take_from_cache();
  }
  check_split();
  if (config_.is_sampled()) plan_sampling();
}

uint64_t Corpus::cell_id(int32_t source, int64_t row) const {
  return (uint64_t{source_keys_[static_cast<std::size_t>(source)]} << 32) | static_cast<uint64_t>(row);
}

void Corpus::assign_roles() {
  for (const CellSource& source : sources_) {
    roles_.emplace_back(static_cast<std::size_t>(source.matrix->num_cells()), CellRole::kTraining);
    std::vector<CellRole>& roles = roles_.back();
    for (std::size_t row = 0; row < source.chosen.size(); ++row) {
      if (!source.chosen[row]) roles[row] = CellRole::kLeftOut;
    }
    if (is_whole(static_cast<int32_t>(roles_.size()) - 1)) continue;
    const int64_t least = std::max<int64_t>(1, config_.min_genes);
    for (std::size_t row = 0; row < roles.size(); ++row) {
      const int64_t entries = source.matrix->stored_entries(static_cast<int64_t>(row));
      if (entries < least) roles[row] = CellRole::kLeftOut;
      if (roles[row] != CellRole::kLeftOut) most_stored_entries_ = std::max(most_stored_entries_, entries);
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
                            by_column ? "data.heldout_column" : "data.heldout_whole_files", unit,
                            "Choose another way to split, or hold out single cells (leave data.heldout_column empty, "
                            "data.heldout_whole_files false)");
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

void Corpus::check_hit_rate(std::size_t source) const {
  const SourceReport& report = reports_[source];
  if (report.chosen_cells == 0) return;
  const std::string estimate =
      report.is_estimate() ? fmt::format(" (of {} cells looked at)", report.tokens.cells) : "";
  const double counts = report.tokens.sum.counts;
  if (counts == 0) {
    throw DataError("{}: matrix {} holds no value above zero{}{}; there is nothing to train on", report.name,
                    report.matrix, report.chosen_cells < report.cells ? " in the cells of data.filter" : "",
                    estimate);
  }
  if (report.tokens.count_hit_rate() >= config_.min_gene_hit_rate) return;
  throw DataError(
      "{}: only {:.1f} % of its counts{} are in genes of the vocabulary (data.min_gene_hit_rate asks for "
      "{:.1f} %; {} of {} genes are known). The largest missing: {}. Is it another species or another kind "
      "of gene "
      "id? Set data.gene_column or data.gene_map, use another vocabulary, or lower data.min_gene_hit_rate",
      report.name, 100 * report.tokens.count_hit_rate(), estimate, 100 * config_.min_gene_hit_rate,
      report.known_genes, report.genes, text_of(report.largest_misses, counts));
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
    if (report.is_estimate()) {
      log::info(
          "[data] {}: of {} cells looked at, {} have too few genes of the vocabulary; others of their block "
          "take the place of such cells",
          report.name, report.tokens.cells, report.unusable_cells);
    }
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
  int64_t num_unusable = 0;
  for (const SourceReport& report : reports_) num_unusable += report.unusable_cells;
  if (num_training_cells_ + num_heldout_cells_ == 0 || num_unusable == total.cells) {
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

// Groups by name, over all files, with their training cells; then their parts of an epoch.
void Corpus::plan_sampling() {
  std::map<std::string, int64_t> cells_of_group;
  const auto name_of = [&](std::size_t source, std::size_t row) -> std::string {
    if (config_.sampling_files) return sources_[source].name;
    const CategoryColumn& column = sources_[source].sampling;
    return column.codes[row] < 0 ? "(missing)"
                                 : column.categories[static_cast<std::size_t>(column.codes[row])];
  };
  // By value of the column first: a million cells have few of them.
  std::vector<std::vector<int64_t>> counts(sources_.size());
  const auto value_of = [&](std::size_t source, std::size_t row) {
    return config_.sampling_files ? std::size_t{0}
                                  : static_cast<std::size_t>(sources_[source].sampling.codes[row] + 1);
  };
  std::vector<std::vector<std::string>> names(sources_.size());
  for (std::size_t source = 0; source < sources_.size(); ++source) {
    const std::size_t num_values =
        config_.sampling_files ? 1 : sources_[source].sampling.categories.size() + 1;
    counts[source].resize(num_values);
    names[source].resize(num_values);
    for (std::size_t row = 0; row < roles_[source].size(); ++row) {
      if (roles_[source][row] != CellRole::kTraining) continue;
      const std::size_t value = value_of(source, row);
      if (counts[source][value]++ == 0) names[source][value] = name_of(source, row);
    }
    for (std::size_t value = 0; value < num_values; ++value)
      if (counts[source][value] > 0) cells_of_group[names[source][value]] += counts[source][value];
  }
  std::unordered_map<std::string, uint32_t> index_of;
  for (const auto& [name, cells] : cells_of_group) {
    index_of.emplace(name, static_cast<uint32_t>(sampling_groups_.size()));
    sampling_groups_.push_back({.name = name, .cells = cells});
  }
  for (const auto& [name, weight] :
       parse_sampling_weights(config_.sampling_weights, "data.sampling_weights")) {
    bool is_known = false;
    for (SamplingGroup& group : sampling_groups_) {
      if (group.name != name &&
          !(config_.sampling_files && std::filesystem::path(group.name).filename().string() == name))
        continue;
      group.weight = weight;
      is_known = true;
    }
    if (is_known) continue;
    std::vector<std::string> some;
    for (std::size_t i = 0; i < std::min<std::size_t>(10, sampling_groups_.size()); ++i)
      some.push_back("'" + sampling_groups_[i].name + "'");
    throw DataError("data.sampling_weights: no training cell is in group '{}'; the {} groups are {}{}", name,
                    sampling_groups_.size(), fmt::join(some, ", "),
                    some.size() < sampling_groups_.size() ? ", ..." : "");
  }
  share_out_epoch(sampling_groups_, config_.sampling_temperature);
  for (std::size_t source = 0; source < sources_.size(); ++source) {
    std::vector<uint32_t> code_of_value(counts[source].size());
    for (std::size_t value = 0; value < code_of_value.size(); ++value)
      if (counts[source][value] > 0) code_of_value[value] = index_of.at(names[source][value]);
    std::vector<uint32_t>& codes = sampling_codes_.emplace_back(roles_[source].size());
    for (std::size_t row = 0; row < codes.size(); ++row)
      if (roles_[source][row] == CellRole::kTraining) codes[row] = code_of_value[value_of(source, row)];
  }
  std::vector<const SamplingGroup*> largest;
  for (const SamplingGroup& group : sampling_groups_) largest.push_back(&group);
  std::stable_sort(largest.begin(), largest.end(),
                   [](const auto* a, const auto* b) { return a->epoch_cells > b->epoch_cells; });
  constexpr std::size_t kNamedGroups = 20;
  for (std::size_t i = 0; i < std::min(largest.size(), kNamedGroups); ++i) {
    log::info("[data] sampling: '{}': {} cells to train on have {} of the {} places of an epoch, {:.2f} each",
              largest[i]->name, largest[i]->cells, largest[i]->epoch_cells, num_training_cells_,
              static_cast<double>(largest[i]->epoch_cells) / static_cast<double>(largest[i]->cells));
  }
  if (largest.size() > kNamedGroups)
    log::info("[data] sampling: and {} groups more", largest.size() - kNamedGroups);
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
