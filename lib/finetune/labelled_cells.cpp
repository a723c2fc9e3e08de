#include "lib/finetune/labelled_cells.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <span>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/core/random.h"
#include "lib/core/signals.h"
#include "lib/core/suggest.h"
#include "lib/core/utf8.h"
#include "lib/data/anndata.h"
#include "lib/data/label_words.h"
#include "lib/data/split.h"

namespace scrna::finetune {
namespace {

constexpr int64_t kWindowCells = 512;  // read and tokenized together
constexpr int64_t kLeastCells = 2;     // of a class in either part

/// A column's values, "" where there is none.
std::vector<std::string> texts_of(const data::CategoryColumn& column) {
  std::vector<std::string> texts;
  for (const int32_t code : column.codes) {
    const std::string text = code < 0 ? "" : column.categories[static_cast<std::size_t>(code)];
    texts.push_back(data::is_missing_label(text) ? "" : text);
  }
  return texts;
}

void require_ignored_labels(const FinetuneConfig& config, const std::set<std::string>& found) {
  for (const std::string& label : config.ignored_labels) {
    if (found.contains(label)) continue;
    const std::string near = nearest_name(label, std::vector<std::string>(found.begin(), found.end()));
    throw DataError("--ignore-label {}: no cell has that '{}'{}", label, config.label,
                    near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
  }
}

/// Cells of each class in one part.
std::vector<int64_t> sizes_of(const LabelledCells& cells, const std::vector<int64_t>& part) {
  std::vector<int64_t> sizes(cells.classes.size());
  for (const int64_t cell : part)
    ++sizes[static_cast<std::size_t>(cells.cells[static_cast<std::size_t>(cell)].label)];
  return sizes;
}

uint64_t hash_of(std::span<const int32_t> tokens) {
  uint64_t hash = mix64(tokens.size());
  for (const int32_t token : tokens) hash = mix64(hash ^ static_cast<uint64_t>(token));
  return hash;
}

/// Moves the end of the held-out cells, the first `held` of members in order of their hash, to where cells of
/// the same hash are not parted, with kLeastCells left to train on where that is possible.
int64_t whole_twins(const std::vector<std::pair<double, int64_t>>& members, int64_t held) {
  const auto size = std::ssize(members);
  const auto parts_twins = [&](int64_t end) {
    return end > 0 && end < size &&
           members[static_cast<std::size_t>(end - 1)].first == members[static_cast<std::size_t>(end)].first;
  };
  int64_t end = held;
  while (parts_twins(end)) ++end;
  if (end <= std::max(held, size - kLeastCells)) return end;
  while (parts_twins(held)) --held;
  return held;
}

/// Of every class the cells with the lowest hashes. A class of fewer than 4 cells becomes rare.
Split split_within_classes(const LabelledCells& cells, const TrainingSettings& settings) {
  std::vector<std::vector<std::pair<double, int64_t>>> members(cells.classes.size());
  for (std::size_t i = 0; i < cells.cells.size(); ++i) {
    const LabelledCell& cell = cells.cells[i];
    members[static_cast<std::size_t>(cell.label)].emplace_back(data::split_position(settings.seed, cell.id),
                                                               static_cast<int64_t>(i));
  }
  Split split;
  for (auto& of_class : members) {
    std::ranges::sort(of_class);
    const auto size = std::ssize(of_class);
    int64_t held = std::llround(settings.heldout_fraction * static_cast<double>(size));
    if (size >= 2 * kLeastCells) held = std::clamp(held, kLeastCells, size - kLeastCells);
    held = whole_twins(of_class, held);
    for (int64_t k = 0; k < size; ++k)
      (k < held ? split.heldout : split.training).push_back(of_class[static_cast<std::size_t>(k)].second);
  }
  std::ranges::sort(split.training);
  std::ranges::sort(split.heldout);
  return split;
}

Split split_by_groups(const LabelledCells& cells, const Labelling& labelling, const FinetuneConfig& config) {
  std::unordered_map<std::string, int64_t> sizes;
  for (const LabelledCell& cell : cells.cells)
    ++sizes[labelling.groups[static_cast<std::size_t>(cell.group)]];
  const auto held = data::choose_heldout_groups(sizes, config.training.heldout_fraction, config.training.seed,
                                                "--split-by " + config.split_by,
                                                fmt::format("groups of '{}'", config.split_by),
                                                "Name another column, or leave out --split-by: a part of the cells "
                                                "of every class is then held out");
  Split split;
  split.held_groups.assign(held.begin(), held.end());
  std::ranges::sort(split.held_groups);
  for (std::size_t i = 0; i < cells.cells.size(); ++i) {
    const bool is_held = held.contains(labelling.groups[static_cast<std::size_t>(cells.cells[i].group)]);
    (is_held ? split.heldout : split.training).push_back(static_cast<int64_t>(i));
  }
  return split;
}

int64_t count_twins(const LabelledCells& cells, const Split& split) {
  std::unordered_set<uint64_t> trained;
  for (const int64_t cell : split.training) trained.insert(cells.cells[static_cast<std::size_t>(cell)].id);
  return std::ranges::count_if(split.heldout, [&](int64_t cell) {
    return trained.contains(cells.cells[static_cast<std::size_t>(cell)].id);
  });
}

/// Codes and names without the classes of which `is_left_out` says so.
void drop_classes(LabelledCells& cells, Split& split, const std::vector<bool>& is_left_out) {
  std::vector<int32_t> code_of(cells.classes.size(), -1);
  std::vector<std::string> kept;
  for (std::size_t i = 0; i < cells.classes.size(); ++i) {
    if (is_left_out[i]) continue;
    code_of[i] = static_cast<int32_t>(kept.size());
    kept.push_back(cells.classes[i]);
  }
  cells.classes = std::move(kept);
  const auto is_dropped = [&](int64_t cell) {
    return is_left_out[static_cast<std::size_t>(cells.cells[static_cast<std::size_t>(cell)].label)];
  };
  split.rare_cells = static_cast<int64_t>(std::erase_if(split.training, is_dropped) +
                                          std::erase_if(split.heldout, is_dropped));
  for (LabelledCell& cell : cells.cells) cell.label = code_of[static_cast<std::size_t>(cell.label)];
}

}  // namespace

std::string first_of(const std::vector<std::string>& names) {
  constexpr std::size_t kMost = 8;
  if (names.size() <= kMost) return fmt::format("{}", fmt::join(names, ", "));
  return fmt::format("{} and {} more", fmt::join(names.begin(), names.begin() + kMost, ", "),
                     names.size() - kMost);
}

Labelling read_labels(const FinetuneConfig& config) {
  Labelling labelling;
  std::vector<std::vector<std::string>> labels, groups;  // [files][cells]
  std::set<std::string> found;
  for (const std::string& name : config.files) {
    const data::AnnDataFile file(name);
    labels.push_back(texts_of(file.obs_categories(config.label)));
    groups.push_back(config.split_by.empty() ? std::vector<std::string>()
                                             : texts_of(file.obs_categories(config.split_by)));
    found.insert(labels.back().begin(), labels.back().end());
    labelling.file_cells += std::ssize(labels.back());
  }
  found.erase("");
  require_ignored_labels(config, found);
  for (const std::string& label : config.ignored_labels) found.erase(label);
  labelling.classes.assign(found.begin(), found.end());
  if (labelling.classes.size() < 2) {
    throw DataError("obs column '{}' of {} has {}; a classifier needs at least two", config.label,
                    fmt::join(config.files, ", "),
                    labelling.classes.empty()
                        ? "no label"
                        : fmt::format("a single label, '{}'", labelling.classes.front()));
  }
  for (const std::string& name : labelling.classes)
    if (!is_one_line_of_text(name))
      throw DataError(
          "obs column '{}': a label is not one line of UTF-8 text without control characters; rename it, or "
          "leave it out with --ignore-label",
          config.label);
  std::map<std::string, int32_t> class_codes, group_codes;
  for (const std::string& name : labelling.classes)
    class_codes.emplace(name, static_cast<int32_t>(class_codes.size()));
  for (std::size_t index = 0; index < labels.size(); ++index) {
    FileLabels& file = labelling.files.emplace_back();
    file.file = config.files[index];
    for (std::size_t cell = 0; cell < labels[index].size(); ++cell) {
      const std::string& label = labels[index][cell];
      const auto code = class_codes.find(label);
      file.classes.push_back(code == class_codes.end() ? -1 : code->second);
      if (label.empty()) ++labelling.unlabelled;
      if (!label.empty() && code == class_codes.end()) ++labelling.ignored;
      if (config.split_by.empty()) continue;
      const std::string& group = groups[index][cell];
      file.groups.push_back(-1);
      if (file.classes.back() < 0) continue;
      if (group.empty()) {
        file.classes.back() = -1;
        ++labelling.without_group;
        continue;
      }
      const auto [entry, is_new] = group_codes.emplace(group, static_cast<int32_t>(labelling.groups.size()));
      if (is_new) labelling.groups.push_back(group);
      file.groups.back() = entry->second;
    }
  }
  return labelling;
}

LabelledCells read_labelled_cells(const train::Embedder& embedder, const Labelling& labelling,
                                  const data::Progress& open_progress, const CellsProgress& keep_going) {
  LabelledCells out;
  out.classes = labelling.classes;
  int64_t looked_at = 0;
  for (std::size_t index = 0; index < labelling.files.size(); ++index) {
    const FileLabels& file = labelling.files[index];
    const data::Corpus corpus = train::open_cells(embedder, file.file, open_progress);
    const int64_t num_cells = corpus.source(0).matrix->num_cells();
    if (num_cells != std::ssize(file.classes)) {
      throw DataError("{}: has {} labels and a matrix of {} cells; do not write to files that are in use",
                      file.file, file.classes.size(), num_cells);
    }
    for (int64_t first = 0; first < num_cells; first += kWindowCells) {
      const int64_t count = std::min(kWindowCells, num_cells - first);
      if (!keep_going(looked_at + first, labelling.file_cells))
        throw Interrupted("stopped by signal {} before the first step; nothing was written", stop_signal());
      const auto begin = file.classes.begin() + first;
      if (std::all_of(begin, begin + count, [](int32_t label) { return label < 0; })) continue;
      const data::TokenizedCells window = data::tokenize_cells(corpus, 0, first, count);
      for (int64_t cell = 0; cell < count; ++cell) {
        const auto row = static_cast<std::size_t>(first + cell);
        if (file.classes[row] < 0) continue;
        const std::span<const int32_t> tokens = window.tokens_of(cell);
        if (tokens.empty()) {
          ++out.without_genes;
          continue;
        }
        out.tokens.tokens.insert(out.tokens.tokens.end(), tokens.begin(), tokens.end());
        out.tokens.begin.push_back(std::ssize(out.tokens.tokens));
        out.cells.push_back({.file = static_cast<int32_t>(index),
                             .row = first + cell,
                             .label = file.classes[row],
                             .group = file.groups.empty() ? -1 : file.groups[row],
                             .id = hash_of(tokens)});
      }
    }
    looked_at += num_cells;
  }
  keep_going(labelling.file_cells, labelling.file_cells);
  return out;
}

Split split_cells(LabelledCells& cells, const Labelling& labelling, const FinetuneConfig& config) {
  Split split = config.split_by.empty() ? split_within_classes(cells, config.training)
                                        : split_by_groups(cells, labelling, config);
  split.heldout_twins = count_twins(cells, split);
  const std::vector<int64_t> training = sizes_of(cells, split.training),
                             heldout = sizes_of(cells, split.heldout);
  std::vector<bool> is_rare(cells.classes.size());
  for (std::size_t i = 0; i < is_rare.size(); ++i) {
    is_rare[i] = training[i] < kLeastCells || heldout[i] < kLeastCells;
    if (is_rare[i])
      split.rare_classes.push_back(
          fmt::format("'{}' ({} to train on, {} held out)", cells.classes[i], training[i], heldout[i]));
  }
  if (split.rare_classes.empty()) return split;
  if (!config.drop_rare_classes) {
    throw DataError(
        "obs column '{}': {} of {} classes have fewer than {} cells in one of the two parts: {}; leave them "
        "out with "
        "--drop-rare-classes, or {}",
        config.label, split.rare_classes.size(), cells.classes.size(), kLeastCells,
        first_of(split.rare_classes),
        config.split_by.empty() ? "merge them with others"
                                : "hold out other groups (--seed, --heldout-fraction, another --split-by)");
  }
  drop_classes(cells, split, is_rare);
  if (cells.classes.size() < 2) {
    throw DataError(
        "obs column '{}': without the classes that have too few cells, {}, fewer than two are left",
        config.label, first_of(split.rare_classes));
  }
  return split;
}

}  // namespace scrna::finetune
