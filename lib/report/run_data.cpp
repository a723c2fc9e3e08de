#include "lib/report/run_data.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include <nlohmann/json.hpp>

#include "lib/config/node.h"
#include "lib/core/error.h"
#include "lib/core/files.h"

namespace scrna::report {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t kLargestMetricsBytes = std::size_t{8} << 30;

void flatten(const config::Node& node, const std::string& path,
             std::vector<std::pair<std::string, std::string>>& out) {
  if (node.kind == config::Node::Kind::kMap) {
    for (const auto& [key, child] : node.entries) flatten(child, path.empty() ? key : path + "." + key, out);
    return;
  }
  std::string text = node.scalar;
  if (node.kind == config::Node::Kind::kList) {
    for (const config::Node& item : node.items) text += (text.empty() ? "" : ", ") + item.scalar;
  }
  out.emplace_back(path, text);
}

double number_of(const Json& json) { return json.is_number() ? json.get<double>() : kNaN; }

// Numbers, null, and the texts that stand for numbers that are not finite in a dump.
double exact_of(const Json& json) {
  if (json.is_string()) {
    const auto text = json.get<std::string>();
    return text == "inf"    ? std::numeric_limits<double>::infinity()
           : text == "-inf" ? -std::numeric_limits<double>::infinity()
                            : kNaN;
  }
  return number_of(json);
}

void add(RunData& run, const std::string& key, double step, double value) {
  Curve& curve = run.curves[key];
  curve.steps.push_back(step);
  curve.values.push_back(value);
}

void read_line(const Json& line, RunData& run) {
  const auto step = line.at("step").get<int64_t>();
  if (line.contains("rollback_from_step")) {
    run.rollbacks.emplace_back(line.at("rollback_from_step").get<int64_t>(), step);
    return;
  }
  if (line.contains("loss")) run.steps_done = std::max(run.steps_done, step);
  for (const auto& [key, value] : line.items()) {
    if (key == "step") continue;
    if (value.is_object()) {
      for (const auto& [layer, number] : value.items())
        add(run, key + "/" + layer, static_cast<double>(step), number_of(number));
    } else if (value.is_number() || value.is_null()) {
      add(run, key, static_cast<double>(step), number_of(value));
    } else if (value.is_boolean()) {
      add(run, key, static_cast<double>(step), value.get<bool>() ? 1 : 0);
    }
  }
}

void read_metrics(const fs::path& file, RunData& run) {
  if (!fs::exists(file)) return;
  const std::string text = read_file(file, kLargestMetricsBytes);
  int64_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t newline = text.find('\n', begin);
    if (newline == std::string::npos) break;  // being written, or cut off
    ++number;
    const Json line = Json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                  text.begin() + static_cast<std::ptrdiff_t>(newline), nullptr, false);
    begin = newline + 1;
    if (!line.is_object() || !line.contains("step") || !line["step"].is_number_integer()) {
      throw DataError("{} line {}: not a line of metrics; expected a JSON object with a step", file.string(),
                      number);
    }
    try {
      read_line(line, run);
    } catch (const Json::exception& problem) {
      throw DataError("{} line {}: {}", file.string(), number, problem.what());
    }
  }
}

void read_dumps(const fs::path& folder, RunData& run) {
  if (!fs::is_directory(folder)) return;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".json") continue;
    const Json dump = Json::parse(read_file(entry.path()), nullptr, false);
    try {
      run.diverged.push_back({.step = dump.at("step"),
                              .reason = dump.at("reason"),
                              .policy = dump.at("policy"),
                              .loss = exact_of(dump.at("loss")),
                              .grad_norm = exact_of(dump.at("grad_norm")),
                              .grad_norm_limit = exact_of(dump.at("grad_norm_limit")),
                              .cells = std::ssize(dump.at("cells")),
                              .file = entry.path()});
    } catch (const Json::exception& problem) {
      throw DataError("{}: not the dump of a step ({})", entry.path().string(), problem.what());
    }
  }
  std::ranges::sort(run.diverged, {}, &DivergedStep::step);
}

// Of a run whose dumps were not kept: training with train.on_divergence: stop ends at the step that it does
// not apply, so a last step that was not applied is where the run diverged.
void read_end_without_dump(RunData& run) {
  const Curve* applied = run.find("applied");
  if (!run.diverged.empty() || applied == nullptr || applied->values.back() != 0 ||
      run.setting("train.on_divergence") != "stop") {
    return;
  }
  const auto last = [&](const std::string& key) {
    return run.find(key) == nullptr ? kNaN : run.find(key)->values.back();
  };
  const double loss = last("loss"), norm = last("grad_norm");
  run.diverged.push_back({.step = run.steps_done,
                          .reason = std::isfinite(loss) && std::isfinite(norm)
                                        ? "the gradient norm exploded (no dump was kept)"
                                        : "a number was not finite (no dump was kept)",
                          .policy = "stop",
                          .loss = loss,
                          .grad_norm = norm,
                          .grad_norm_limit = kNaN});
}

void read_facts(const fs::path& folder, RunData& run) {
  if (fs::exists(folder / "run.json")) {
    const Json facts = Json::parse(read_file(folder / "run.json"), nullptr, false);
    if (!facts.is_object()) throw DataError("{}: not a JSON object", (folder / "run.json").string());
    for (const auto& [key, value] : facts.items())
      run.facts[key] = value.is_string() ? value.get<std::string>() : value.dump();
  }
  const fs::path state_file = folder / "checkpoints/latest/state.json";
  if (!fs::exists(state_file)) return;
  const Json state = Json::parse(read_file(state_file), nullptr, false);
  if (!state.is_object() || !state.contains("cells_by_length")) return;
  try {
    for (const Json& pair : state["cells_by_length"]) {
      run.length_edges.push_back(number_of(pair.at(0)));
      run.length_counts.push_back(number_of(pair.at(1)));
    }
  } catch (const Json::exception& problem) {
    throw DataError("{}: cells_by_length: {}", state_file.string(), problem.what());
  }
  // The counts are of [edge, next edge); the last bin is half an octave wide like the others.
  if (!run.length_edges.empty()) run.length_edges.push_back(run.length_edges.back() * std::sqrt(2.0));
}

}  // namespace

const Curve* RunData::find(const std::string& key) const {
  const auto found = curves.find(key);
  return found == curves.end() ? nullptr : &found->second;
}

std::vector<std::string> RunData::layers_of(const std::string& key) const {
  std::vector<std::string> layers;
  for (auto at = curves.lower_bound(key + "/"); at != curves.end() && at->first.starts_with(key + "/");
       ++at) {
    layers.push_back(at->first.substr(key.size() + 1));
  }
  // The map's order is the alphabet's: the head belongs behind the layers.
  std::ranges::stable_partition(layers, [](const std::string& layer) { return layer != "head"; });
  return layers;
}

std::string RunData::setting(const std::string& path) const {
  const auto found = std::ranges::find(config, path, &std::pair<std::string, std::string>::first);
  return found == config.end() ? std::string() : found->second;
}

double RunData::number(const std::string& path) const {
  const std::string text = setting(path);
  double value = kNaN;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size()) return kNaN;
  return value;
}

std::optional<DivergedStep> RunData::end() const {
  if (diverged.empty() || is_finished()) return std::nullopt;
  // A later step was done: this one did not end the run.
  return diverged.back().step >= steps_done ? std::optional(diverged.back()) : std::nullopt;
}

bool RunData::is_finished() const {
  const double steps = number("train.steps");
  const bool last_diverged =
      !diverged.empty() && diverged.back().step == steps_done && diverged.back().policy != "skip";
  return static_cast<double>(steps_done) >= steps && !last_diverged;
}

double RunData::last_mean(const std::string& key) const {
  const Curve* curve = find(key);
  if (curve == nullptr) return kNaN;
  std::vector<double> finite;
  std::ranges::copy_if(curve->values, std::back_inserter(finite),
                       [](double value) { return std::isfinite(value); });
  if (finite.empty()) return kNaN;
  const auto count = std::max<std::ptrdiff_t>(1, std::ssize(finite) / 10);
  return std::accumulate(finite.end() - count, finite.end(), 0.0) / static_cast<double>(count);
}

double RunData::largest(const std::string& key) const {
  const Curve* curve = find(key);
  double largest = kNaN;
  if (curve == nullptr) return largest;
  for (const double value : curve->values) {
    if (std::isfinite(value) && !(value <= largest)) largest = value;
  }
  return largest;
}

double RunData::training_seconds() const {
  const Curve* seconds = find("seconds");
  return seconds == nullptr ? 0 : std::accumulate(seconds->values.begin(), seconds->values.end(), 0.0);
}

RunData read_run(const fs::path& folder, const std::string& name) {
  if (!fs::exists(folder / "config.yaml")) {
    throw DataError("{}: not a run directory (it has no config.yaml); give the folder that run.dir named",
                    folder.string());
  }
  RunData run;
  run.folder = folder;
  run.name = name.empty() ? fs::weakly_canonical(folder).filename().string() : name;
  flatten(config::parse_file(folder / "config.yaml"), "", run.config);
  read_metrics(folder / "metrics.jsonl", run);
  read_dumps(folder / "divergence", run);
  read_end_without_dump(run);
  read_facts(folder, run);
  return run;
}

}  // namespace scrna::report
