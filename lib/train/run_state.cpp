#include "lib/train/run_state.h"

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include <ATen/core/grad_mode.h>

#include "lib/core/error.h"
#include "lib/core/files.h"

namespace scrna::train {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kFormatVersion = 2;  // 2: steps that were not applied, data left out
constexpr const char* kMean = "mean.";
constexpr const char* kSquaredMean = "squared_mean.";

std::string shape_text(at::IntArrayRef shape) {
  return fmt::format("[{}]", fmt::join(shape.begin(), shape.end(), ", "));
}

/// The tensors of one file by name, each checked against the parameter it belongs to.
class Tensors {
 public:
  Tensors(const checkpoint::Safetensors& file, std::filesystem::path path) : path_(std::move(path)) {
    for (const auto& [name, tensor] : file.tensors) by_name_.emplace(name, tensor);
  }
  const at::Tensor& take(const std::string& name, const ops::Parameter& parameter) {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) {
      throw CheckpointError("{}: has no tensor '{}': it belongs to another model; check the `model` settings",
                            path_.string(), name);
    }
    const at::Tensor& tensor = found->second;
    if (tensor.sizes() != parameter.value.sizes() || tensor.scalar_type() != at::kFloat) {
      throw CheckpointError(
          "{}: tensor '{}' is {} {}, but the model needs fp32 {}; check the `model` settings, tokenizer.max_tokens "
          "and the vocabulary",
          path_.string(), name, c10::toString(tensor.scalar_type()), shape_text(tensor.sizes()),
          shape_text(parameter.value.sizes()));
    }
    taken_.insert(name);
    return tensor;
  }
  void require_all_taken() const {
    for (const auto& [name, tensor] : by_name_) {
      if (!taken_.contains(name)) {
        throw CheckpointError("{}: tensor '{}' is unknown to this model; check the `model` settings", path_.string(),
                              name);
      }
    }
  }

 private:
  std::filesystem::path path_;
  std::map<std::string, at::Tensor> by_name_;
  std::set<std::string> taken_;
};

template <class T>
T required(const Json& json, const char* key, const std::filesystem::path& path) {
  try {
    return json.at(key).get<T>();
  } catch (const Json::exception&) {
    throw CheckpointError("{}: '{}' is missing or of the wrong type; the checkpoint is damaged or of another version",
                          path.string(), key);
  }
}

Json to_json(const WatchState& watch) {
  return {{"start_loss_sum", watch.start_loss_sum},
          {"start_steps", watch.start_steps},
          {"steps_above", watch.steps_above},
          {"skipped_steps", watch.skipped_steps},
          {"skipped_in_a_row", watch.skipped_in_a_row},
          {"grad_norms", watch.grad_norms}};
}

WatchState watch_from(const Json& json, const std::filesystem::path& path) {
  return {.start_loss_sum = required<double>(json, "start_loss_sum", path),
          .start_steps = required<int64_t>(json, "start_steps", path),
          .steps_above = required<int64_t>(json, "steps_above", path),
          .grad_norms = required<std::deque<std::pair<int64_t, double>>>(json, "grad_norms", path),
          .skipped_steps = required<int64_t>(json, "skipped_steps", path),
          .skipped_in_a_row = required<int64_t>(json, "skipped_in_a_row", path)};
}

}  // namespace

void CellsByLength::add(int64_t tokens, int64_t cells) {
  if (tokens < 1 || cells < 1) return;
  // Integers decide at the borders, which are squares: 2^i <= tokens^2.
  const auto wide = static_cast<double>(tokens) * static_cast<double>(tokens);
  const auto bin = static_cast<std::size_t>(std::ilogb(wide));
  if (counts_.size() <= bin) counts_.resize(bin + 1);
  counts_[bin] += cells;
}

std::vector<std::pair<double, int64_t>> CellsByLength::bins() const {
  std::vector<std::pair<double, int64_t>> result;
  for (std::size_t bin = 0; bin < counts_.size(); ++bin) {
    if (!result.empty() || counts_[bin] > 0) result.emplace_back(std::exp2(static_cast<double>(bin) / 2), counts_[bin]);
  }
  return result;
}

std::string fingerprint_of(const data::Corpus& corpus) {
  std::string text;
  for (const data::SourceReport& report : corpus.reports()) {
    text += fmt::format("{}|{}|{}|{}|{}|{}\n", std::filesystem::path(report.name).filename().string(), report.matrix,
                        report.cells, report.genes, report.training_cells, report.heldout_cells);
  }
  for (const data::SamplingGroup& group : corpus.sampling_groups())
    text += fmt::format("sampling|{}|{}|{}\n", group.name, group.cells, group.epoch_cells);
  return sha256(text);
}

Moments collect_moments(const optim::AdamW& optimizer, const dist::Shards* shards) {
  if (shards == nullptr) return {optimizer.mean(), optimizer.squared_mean(), optimizer.num_updates()};
  at::Tensor mean = shards->collect(optimizer.mean());
  return {std::move(mean), shards->collect(optimizer.squared_mean()), optimizer.num_updates()};
}

checkpoint::Contents snapshot(const model::Encoder& encoder, const Moments& moments, const RunState& state,
                              const std::string& config_yaml) {
  checkpoint::Contents contents;
  const ops::ParameterSet& parameters = encoder.parameters();
  for (std::size_t i = 0; i < parameters.all().size(); ++i) {
    const std::string& name = parameters.all()[i].name;
    contents.model.tensors.emplace_back(name, parameters.slice(parameters.values(), i));
    contents.optimizer.tensors.emplace_back(kMean + name, parameters.slice(moments.mean, i));
    contents.optimizer.tensors.emplace_back(kSquaredMean + name, parameters.slice(moments.squared_mean, i));
  }
  contents.model.metadata = {{"format", "scrna-train"},
                             {"step", std::to_string(state.step)},
                             {"vocabulary_sha256", state.vocabulary_sha256},
                             {"config", config_yaml}};
  contents.optimizer.metadata = {{"format", "scrna-train"}, {"updates", std::to_string(moments.num_updates)}};
  contents.state = Json{{"format_version", kFormatVersion},
                        {"step", state.step},
                        {"epoch", state.epoch},
                        {"cells", state.cells},
                        {"tokens", state.tokens},
                        {"training_seconds", state.training_seconds},
                        {"last_heldout_step", state.last_heldout_step},
                        {"optimizer_updates", moments.num_updates},
                        {"data_offset", state.data_offset},
                        {"offset_since_step", state.offset_since_step},
                        {"rollbacks", state.rollbacks},
                        {"watch", to_json(state.watch)},
                        {"cells_by_length", state.cells_by_length.bins()},
                        {"seed", state.seed},
                        {"vocabulary_sha256", state.vocabulary_sha256},
                        {"training_cells_sha256", state.training_cells_sha256},
                        {"gene_map_sha256", state.gene_map_sha256}}
                       .dump(2) +
                   "\n";
  return contents;
}

RunState parse_state(const checkpoint::Contents& contents, const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "state.json";
  const Json json = Json::parse(contents.state, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) throw CheckpointError("{}: not a JSON object; the checkpoint is damaged", path.string());
  if (json.contains("finetuned_from")) {
    throw CheckpointError("{}: was made by scrna-train finetune, which cannot be resumed; a run can begin with its weights "
                          "(train.initial_weights: {})", path.string(), folder.string());
  }
  const auto version = required<int64_t>(json, "format_version", path);
  if (version < 1 || version > kFormatVersion) {
    throw CheckpointError("{}: format version {}, but this program reads up to version {}", path.string(), version,
                          kFormatVersion);
  }
  RunState state{.step = required<int64_t>(json, "step", path),
                 .epoch = required<int64_t>(json, "epoch", path),
                 .cells = required<int64_t>(json, "cells", path),
                 .tokens = required<int64_t>(json, "tokens", path),
                 .training_seconds = required<double>(json, "training_seconds", path),
                 .last_heldout_step = required<int64_t>(json, "last_heldout_step", path),
                 .optimizer_updates = required<int64_t>(json, "optimizer_updates", path),
                 .watch = {},
                 .seed = required<uint64_t>(json, "seed", path),
                 .vocabulary_sha256 = required<std::string>(json, "vocabulary_sha256", path),
                 .training_cells_sha256 = required<std::string>(json, "training_cells_sha256", path),
                 .gene_map_sha256 = json.contains("gene_map_sha256") ? required<std::string>(json, "gene_map_sha256", path) : ""};
  if (version == 1) return state;
  state.data_offset = required<int64_t>(json, "data_offset", path);
  state.offset_since_step = required<int64_t>(json, "offset_since_step", path);
  state.rollbacks = required<int64_t>(json, "rollbacks", path);
  for (const auto& [tokens, cells] : required<std::vector<std::pair<double, int64_t>>>(json, "cells_by_length", path)) {
    state.cells_by_length.add(static_cast<int64_t>(std::ceil(tokens)), cells);
  }
  state.watch = watch_from(required<Json>(json, "watch", path), path);
  return state;
}

void restore_weights(const checkpoint::Safetensors& weights, const std::filesystem::path& file,
                     model::Encoder& encoder) {
  Tensors tensors(weights, file);
  const ops::ParameterSet& parameters = encoder.parameters();
  std::vector<std::pair<at::Tensor, at::Tensor>> copies;  // to, from
  for (std::size_t i = 0; i < parameters.all().size(); ++i) {
    const ops::Parameter& parameter = parameters.all()[i];
    copies.emplace_back(parameters.slice(parameters.values(), i), tensors.take(parameter.name, parameter));
  }
  tensors.require_all_taken();
  const at::NoGradGuard no_grad;
  for (auto& [to, from] : copies) to.copy_(from);
  encoder.parameters().refresh_compute_values();
}

void restore(const checkpoint::Contents& contents, const std::filesystem::path& folder, const RunState& state,
             model::Encoder& encoder, optim::AdamW& optimizer) {
  Tensors weights(contents.model, folder / "model.safetensors");
  Tensors moments(contents.optimizer, folder / "optimizer.safetensors");
  const ops::ParameterSet& parameters = encoder.parameters();
  struct Restored {
    at::Tensor value, mean, squared_mean;
  };
  std::vector<Restored> restored;  // [parameters]
  for (std::size_t i = 0; i < parameters.all().size(); ++i) {
    const ops::Parameter& parameter = parameters.all()[i];
    restored.push_back({weights.take(parameter.name, parameter), moments.take(kMean + parameter.name, parameter),
                        moments.take(kSquaredMean + parameter.name, parameter)});
  }
  weights.require_all_taken();
  moments.require_all_taken();
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < restored.size(); ++i) {
    const auto& [value, mean, squared_mean] = restored[i];
    parameters.slice(parameters.values(), i).copy_(value);
    optimizer.set_moments(parameters.range_of(i).begin, mean.flatten(), squared_mean.flatten());
  }
  encoder.parameters().refresh_compute_values();
  optimizer.set_num_updates(state.optimizer_updates);
}

}  // namespace scrna::train
