#include "apps/scrna_train/evaluate_inputs.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lib/core/error.h"
#include "lib/data/cell_source.h"

namespace scrna::app {
namespace {

namespace fs = std::filesystem;

fs::path canonical_path(const fs::path& path) {
  std::error_code problem;
  fs::path out = fs::weakly_canonical(fs::absolute(path), problem);
  return problem ? path : out;
}

std::string list_of(const std::vector<DataSet>& sets) {
  std::string out;
  for (const DataSet& set : sets) out += (out.empty() ? "" : ", ") + set.file;
  return out;
}

/// The data set that `text` names, as it was given, as a path or by its name alone; null: none. Throws ConfigError when that
/// name is several files'.
DataSet* find_set(std::vector<DataSet>& sets, const std::string& flag, const std::string& text) {
  DataSet* found = nullptr;
  for (DataSet& set : sets) {
    if (text == set.file || canonical_path(text) == canonical_path(set.file)) return &set;
    if (text != fs::path(set.file).filename() && text != set.name) continue;
    if (found != nullptr)
      throw ConfigError("{}: '{}' is the name of {} and of {}; give the path", flag, text, found->file, set.file);
    found = &set;
  }
  return found;
}

bool looks_like_a_file(const std::string& text) { return text.ends_with(".h5ad") || text.ends_with(".h5"); }

struct Word {
  DataSet* set = nullptr;  // null: about all
  std::string value;
};

/// "B.h5ad:donor" -> (B, "donor"); "donor" and "a:b", when a is no file, -> (all, the text).
Word split(std::vector<DataSet>& sets, const std::string& flag, const std::string& text) {
  for (std::size_t colon = text.find(':'); colon != std::string::npos; colon = text.find(':', colon + 1)) {
    const std::string file = text.substr(0, colon);
    if (DataSet* set = find_set(sets, flag, file)) return {set, text.substr(colon + 1)};
    if (looks_like_a_file(file))
      throw ConfigError("{} '{}': {} is none of the data files, which are: {}", flag, text, file, list_of(sets));
  }
  return {nullptr, text};
}

/// Writes the column of each data set that has one: its own word, else the one about all.
void set_columns(std::vector<DataSet>& sets, const std::string& flag, const std::vector<std::string>& texts,
                 std::string eval::CellChoice::*column) {
  std::string of_all;
  for (const std::string& text : texts) {
    const Word word = split(sets, flag, text);
    if (word.value.empty()) throw ConfigError("{} '{}': expected the name of an obs column{}", flag, text,
                                              word.set != nullptr ? " after the colon" : "");
    std::string& place = word.set != nullptr ? word.set->choice.*column : of_all;
    if (!place.empty())
      throw ConfigError("{}: both '{}' and '{}' for {}; one column is measured at a time", flag, place, word.value,
                        word.set != nullptr ? word.set->file : "all files");
    place = word.value;
  }
  for (DataSet& set : sets)
    if ((set.choice.*column).empty()) set.choice.*column = of_all;
}

void set_labels(std::vector<DataSet>& sets, const DataSetWords& words) {
  std::set<const DataSet*> unlabelled;
  for (const std::string& file : words.unlabelled) {
    DataSet* set = find_set(sets, "--no-label", file);
    if (set == nullptr) throw ConfigError("--no-label {}: is none of the data files, which are: {}", file, list_of(sets));
    unlabelled.insert(set);
  }
  for (const std::string& text : words.labels) {
    const Word word = split(sets, "--label", text);
    if (word.set != nullptr && unlabelled.contains(word.set))
      throw ConfigError("{}: both --label {} and --no-label; leave one out", word.set->file, text);
  }
  set_columns(sets, "--label", words.labels, &eval::CellChoice::label);
  for (DataSet& set : sets) {
    if (unlabelled.contains(&set)) {
      set.choice.label.clear();
    } else if (set.choice.label.empty()) {
      throw ConfigError("{}: no label column; name one with --label COLUMN or --label {}:COLUMN, or say --no-label {} to measure "
                        "only what needs no labels", set.file, fs::path(set.file).filename().string(), set.file);
    }
  }
}

void set_excluded(std::vector<DataSet>& sets, const std::vector<std::string>& texts) {
  for (const std::string& text : texts) {
    const Word word = split(sets, "--exclude-label", text);
    if (word.set != nullptr && word.set->choice.label.empty())
      throw ConfigError("--exclude-label {}: {} has --no-label", text, word.set->file);
    if (word.set != nullptr) word.set->choice.excluded_labels.push_back(word.value);
    for (DataSet& set : sets)
      if (word.set == nullptr && !set.choice.label.empty()) set.excluded_if_there.push_back(word.value);
  }
}

std::vector<DataSet> open_list(const DataSetWords& words) {
  std::vector<DataSet> sets;
  std::map<fs::path, std::string> seen;
  std::map<std::string, int> stems;
  for (const std::string& pattern : words.files) {
    for (const fs::path& path : data::resolve_files({pattern})) {
      const auto [earlier, is_new] = seen.emplace(canonical_path(path), path.string());
      if (!is_new)
        throw ConfigError("{} is named twice{}; every data set is measured once", path.string(),
                          earlier->second == path.string() ? "" : " (also as " + earlier->second + ")");
      sets.push_back({path.string(), path.stem().string(), words.common, {}});
      ++stems[sets.back().name];
    }
  }
  if (sets.empty()) throw ConfigError("evaluate: no data; name one or more .h5ad files");
  for (DataSet& set : sets)
    if (stems[set.name] > 1) set.name = set.file;
  return sets;
}

}  // namespace

std::vector<DataSet> data_sets_of(const DataSetWords& words) {
  std::vector<DataSet> sets = open_list(words);
  set_labels(sets, words);
  set_columns(sets, "--batch", words.batches, &eval::CellChoice::batch);
  set_excluded(sets, words.excluded_labels);
  return sets;
}

namespace {

/// "runs/first" -> "first", "runs/first/checkpoints/step-00000500" -> "first step-00000500", "m.safetensors" -> "m".
std::string short_name(const std::string& checkpoint) {
  fs::path path = fs::path(checkpoint).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  const fs::path parent = path.parent_path();
  if (parent.filename() == "checkpoints") return parent.parent_path().filename().string() + " " + path.filename().string();
  return path.extension() == ".safetensors" ? path.stem().string() : path.filename().string();
}

void add_group(const std::string& text, std::vector<NamedCheckpoint>& out) {
  const std::size_t equals = text.find('=');
  const std::string name = text.substr(0, equals);
  if (equals == std::string::npos || name.empty())
    throw ConfigError("--group '{}': expected NAME=RUN,RUN..., for example sigmoid=runs/sig-1,runs/sig-2", text);
  for (const NamedCheckpoint& earlier : out)
    if (earlier.group == name) throw ConfigError("--group {}: stands twice; name all of its runs in one, separated by commas", name);
  int number = 0;
  for (std::size_t begin = equals + 1; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    if (end == begin) throw ConfigError("--group '{}': expected a run between the commas", text);
    out.push_back({fmt::format("{} {}", name, ++number), name, text.substr(begin, end - begin)});
    begin = end + 1;
  }
  if (number == 0) throw ConfigError("--group '{}': expected runs after the equals sign", text);
}

}  // namespace

std::vector<NamedCheckpoint> checkpoints_of(const ModelWords& words) {
  if (!words.names.empty() && words.names.size() != words.checkpoints.size())
    throw ConfigError("--name stands {} times, --checkpoint {} times; name all of them, in their order, or none",
                      words.names.size(), words.checkpoints.size());
  std::vector<NamedCheckpoint> out;
  for (std::size_t i = 0; i < words.checkpoints.size(); ++i)
    out.push_back({words.names.empty() ? short_name(words.checkpoints[i]) : words.names[i], "", words.checkpoints[i]});
  for (const std::string& group : words.groups) add_group(group, out);
  std::map<std::string, std::string> by_name;
  std::set<fs::path> paths;
  for (const NamedCheckpoint& model : out) {
    if (!paths.insert(canonical_path(model.path)).second) throw ConfigError("the checkpoint {} is named twice", model.path);
    const auto [earlier, is_new] = by_name.emplace(model.name, model.path);
    if (!is_new)
      throw ConfigError("{} and {} would both be called '{}'; tell them apart with --name, once for each --checkpoint",
                        earlier->second, model.path, model.name);
  }
  return out;
}

}  // namespace scrna::app
