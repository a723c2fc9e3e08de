#include "lib/train/trained_model.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "lib/checkpoint/checkpoint.h"
#include "lib/config/config.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/train/run_directory.h"
#include "lib/train/run_state.h"

namespace scrna::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "scrna-train model";
constexpr const char* kFormatVersion = "1";

// What may differ between the run and the use of its model: how it computes, and how files are read. All else
// decides what a token or a weight means.
constexpr std::array<std::string_view, 16> kFree = {"train.device",
                                                    "train.precision",
                                                    "train.num_threads",
                                                    "model.attention_kernel",
                                                    "model.attention_precision",
                                                    "model.residual_precision",
                                                    "model.gelu_precision",
                                                    "data.matrix",
                                                    "data.genome",
                                                    "data.gene_column",
                                                    "data.gene_map",
                                                    "data.min_gene_hit_rate",
                                                    "data.allow_normalized",
                                                    "data.min_genes",
                                                    "data.scan_cells",
                                                    "data.num_workers"};

const std::string& entry(const checkpoint::Safetensors& file, const char* key, const fs::path& path) {
  const auto found = file.metadata.find(key);
  if (found == file.metadata.end()) {
    throw CheckpointError(
        "{}: has no '{}' in its metadata: it is not a model that scrna-train export or "
        "scripts/scrna_torch.py wrote",
        path.string(), key);
  }
  return found->second;
}

int64_t step_in(const checkpoint::Safetensors& file, const fs::path& path) {
  const std::string& text = entry(file, "step", path);
  int64_t step = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), step);
  if (error != std::errc() || end != text.data() + text.size() || step < 0) {
    throw CheckpointError("{}: 'step' in its metadata is '{}', expected a whole number", path.string(), text);
  }
  return step;
}

TrainConfig read_config(const std::string& text, const fs::path& path) {
  try {
    return config::from_node<TrainConfig>(config::parse_text(text, path.string() + " (config)"));
  } catch (const ConfigError& problem) {
    throw CheckpointError("{}: its configuration cannot be used: {}; was it written by a newer version?",
                          path.string(), problem.what());
  }
}

TrainedModel complete(TrainedModel model) {
  model.vocabulary_sha256 = model.vocabulary.hash();
  const std::string& expected = entry(model.weights, "vocabulary_sha256", model.source);
  if (expected != model.vocabulary_sha256) {
    throw CheckpointError(
        "{}: was trained with another vocabulary (SHA-256 {:.12}...) than the one beside it ({:.12}...): its "
        "vocabulary.tsv was changed or belongs to another run",
        model.source.string(), expected, model.vocabulary_sha256);
  }
  model.config_sha256 = sha256(model.config_text);
  model.weights_sha256 = weights_hash(model.weights);
  return model;
}

TrainedModel load_file(const fs::path& path) {
  checkpoint::Safetensors file = checkpoint::load_safetensors(path);
  if (const std::string& format = entry(file, "format", path); format != kFormat) {
    throw CheckpointError(
        "{}: its format is '{}', expected '{}'{}", path.string(), format, kFormat,
        format == "scrna-train" ? ": it is part of a checkpoint; name the checkpoint's folder" : "");
  }
  if (const std::string& version = entry(file, "format_version", path); version != kFormatVersion) {
    throw CheckpointError("{}: written in version {} of the format, but this program reads version {}",
                          path.string(), version, kFormatVersion);
  }
  const std::string config_text = entry(file, "config", path);
  data::Vocabulary vocabulary =
      data::Vocabulary::parse(entry(file, "vocabulary", path), path.string() + " (vocabulary)");
  const int64_t step = step_in(file, path);
  return complete({.source = path,
                   .step = step,
                   .config_text = config_text,
                   .config = read_config(config_text, path),
                   .vocabulary = std::move(vocabulary),
                   .weights = std::move(file),
                   .weights_sha256 = {},
                   .vocabulary_sha256 = {},
                   .config_sha256 = {}});
}

TrainedModel load_folder(const fs::path& path) {
  const fs::path run = RunDirectory::containing(path);
  const fs::path canonical = fs::weakly_canonical(path);
  const bool is_checkpoint = canonical != run && canonical != run / "checkpoints";
  const fs::path folder = is_checkpoint ? canonical : checkpoint::find_latest(run / "checkpoints");
  checkpoint::Safetensors weights = checkpoint::load_without_optimizer(folder).model;
  const fs::path file = folder / "model.safetensors";
  const std::string config_text = entry(weights, "config", file);
  data::Vocabulary vocabulary = data::Vocabulary::load(run / "vocabulary.tsv");
  const int64_t step = step_in(weights, file);
  return complete({.source = folder,
                   .step = step,
                   .config_text = config_text,
                   .config = read_config(config_text, file),
                   .vocabulary = std::move(vocabulary),
                   .weights = std::move(weights),
                   .weights_sha256 = {},
                   .vocabulary_sha256 = {},
                   .config_sha256 = {}});
}

// The configuration of a file is believed as far as the file has the tensors for it: a few wrong digits in it
// must not make an encoder of a terabyte.
void require_plausible(const TrainedModel& model, const TrainConfig& config) {
  const model::ModelConfig& encoder = config.model;
  const auto require = [&](const std::string& name, std::vector<int64_t> shape) {
    for (const auto& [found, tensor] : model.weights.tensors) {
      if (found == name && tensor.sizes() == at::IntArrayRef(shape)) return;
    }
    throw CheckpointError(
        "{}: has no tensor '{}' of shape [{}], which its vocabulary and configuration ask for",
        model.source.string(), name, fmt::join(shape, ", "));
  };
  require("embedding.gene.weight", {model.vocabulary.size(), encoder.width});
  require("embedding.rank.weight", {config.tokenizer.max_tokens, encoder.width});
  for (int64_t layer = 0; layer < encoder.num_layers; ++layer) {
    require(model::layer_name(layer) + ".feed_forward.in.weight",
            {encoder.feed_forward_width, encoder.width});
  }
}

// What a reader without YAML needs to compute with the weights: {"tokenizer": {...}, "model": {"width": 768,
// ...}}.
Json json_of(const TrainConfig& config) {
  Json json = Json::object();
  for (const config::Entry& entry : config::entries(config)) {
    const std::size_t dot = entry.path.find('.');
    const std::string section = entry.path.substr(0, dot);
    if (entry.is_section || (section != "model" && section != "tokenizer")) continue;
    const Json value = Json::parse(entry.value, nullptr, /*allow_exceptions=*/false);
    json[section][entry.path.substr(dot + 1)] =
        value.is_number() || value.is_boolean() ? value : Json(entry.value);
  }
  return json;
}

}  // namespace

std::string weights_hash(const checkpoint::Safetensors& weights) {
  std::map<std::string, std::string> lines;
  for (const auto& [name, tensor] : weights.tensors) {
    const at::Tensor host = tensor.contiguous();
    const std::string_view bytes(static_cast<const char*>(host.const_data_ptr()), host.nbytes());
    lines[name] = fmt::format("{} {} [{}] {}\n", name, c10::toString(host.scalar_type()),
                              fmt::join(host.sizes().begin(), host.sizes().end(), ","), sha256(bytes));
  }
  std::string text;
  for (const auto& [name, line] : lines) text += line;
  return sha256(text);
}

TrainedModel load_trained_model(const fs::path& path) {
  std::error_code problem;
  const fs::file_status status = fs::status(path, problem);
  if (!fs::exists(status)) {
    throw ConfigError(
        "--checkpoint {}: there is nothing; expected a run directory, a checkpoint "
        "(RUN/checkpoints/step-...) or a file that scrna-train export wrote",
        path.string());
  }
  return fs::is_directory(status) ? load_folder(path) : load_file(path);
}

TrainConfig config_for_use(const TrainedModel& model, std::span<const std::string> assignments) {
  TrainConfig before = model.config;
  // What says how files are read stays; which files, cells and columns the run took says nothing about
  // others.
  before.data = data::DataConfig();
  before.data.gene_map = model.config.data.gene_map;
  before.data.min_gene_hit_rate = model.config.data.min_gene_hit_rate;
  before.data.allow_normalized = model.config.data.allow_normalized;
  before.data.min_genes = model.config.data.min_genes;
  before.data.scan_cells = model.config.data.scan_cells;
  before.data.num_workers = model.config.data.num_workers;
  before.data.heldout_fraction = 0;
  before.heldout.every_steps = 0;
  before.train.device = DeviceChoice::kAuto;  // the run's machine is not this one
  before.train.precision = Precision::kAuto;
  config::Node root = config::parse_text(config::dump(before), model.source.string());
  for (const std::string& assignment : assignments) config::apply_override(root, assignment);
  const auto config = config::from_node<TrainConfig>(root);
  for (const config::Difference& difference : config::differences(before, config)) {
    if (std::ranges::find(kFree, difference.path) != kFree.end()) continue;
    throw ConfigError("--set {}={}: cannot be changed for a trained model; expected one of {}",
                      difference.path, difference.after, fmt::join(kFree, ", "));
  }
  return config;
}

std::unique_ptr<model::Encoder> make_encoder(const TrainedModel& model, const TrainConfig& config,
                                             at::Device device, at::ScalarType compute_type) {
  require_plausible(model, config);
  auto encoder =
      std::make_unique<model::Encoder>(config.model, model.vocabulary.size(), config.tokenizer.max_tokens,
                                       config.train.seed, device, compute_type);
  restore_weights(model.weights, model.source, *encoder);
  return encoder;
}

void export_model(const TrainedModel& model, const fs::path& path, const std::string& program) {
  checkpoint::Safetensors file{.tensors = model.weights.tensors, .metadata = {}};
  file.metadata = {{"format", kFormat},
                   {"format_version", kFormatVersion},
                   {"step", std::to_string(model.step)},
                   {"config", model.config_text},
                   {"config_json", json_of(model.config).dump()},
                   {"vocabulary", model.vocabulary.text()},
                   {"vocabulary_sha256", model.vocabulary_sha256},
                   {"weights_sha256", model.weights_sha256},
                   {"program", program}};
  checkpoint::save_safetensors(path, file);
}

}  // namespace scrna::train
