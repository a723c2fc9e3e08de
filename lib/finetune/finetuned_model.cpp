#include "lib/finetune/finetuned_model.h"

#include <charconv>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <nlohmann/json.hpp>

#include "lib/checkpoint/checkpoint.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/train/run_directory.h"

namespace scrna::finetune {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFile = "classifier.safetensors";
constexpr const char* kFormat = "scrna-train classifier";
constexpr const char* kFormatVersion = "1";
constexpr int64_t kKeptCheckpoints = 2;  // the one saved, and the one that classifier.safetensors still names

const std::string& entry(const checkpoint::Safetensors& file, const char* key, const fs::path& path) {
  const auto found = file.metadata.find(key);
  if (found == file.metadata.end())
    throw CheckpointError("{}: has no '{}' in its metadata; it is damaged, or no classifier of scrna-train",
                          path.string(), key);
  return found->second;
}

int64_t integer(const checkpoint::Safetensors& file, const char* key, const fs::path& path) {
  const std::string& text = entry(file, key, path);
  int64_t value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0)
    throw CheckpointError("{}: '{}' in its metadata is '{}', expected a whole number", path.string(), key,
                          text);
  return value;
}

std::vector<std::string> classes_of(const checkpoint::Safetensors& file, const fs::path& path) {
  const Json json = Json::parse(entry(file, "classes", path), nullptr, /*allow_exceptions=*/false);
  std::vector<std::string> classes;
  if (json.is_array()) {
    for (const Json& name : json)
      if (name.is_string()) classes.push_back(name.get<std::string>());
  }
  if (classes.size() < 2 || classes.size() != json.size())
    throw CheckpointError("{}: 'classes' in its metadata is no list of at least two names", path.string());
  return classes;
}

at::Tensor tensor(const checkpoint::Safetensors& file, const std::string& name, std::vector<int64_t> shape,
                  const fs::path& path) {
  for (const auto& [found, value] : file.tensors) {
    if (found == name && value.sizes() == at::IntArrayRef(shape) && value.scalar_type() == at::kFloat &&
        at::isfinite(value).all().item<bool>())
      return value;
  }
  throw CheckpointError("{}: has no tensor '{}' of finite fp32 numbers and shape [{}]", path.string(), name,
                        fmt::join(shape, ", "));
}

Classifier read_classifier(const fs::path& path, const checkpoint::Safetensors& file) {
  if (const std::string& format = entry(file, "format", path); format != kFormat)
    throw CheckpointError("{}: its format is '{}', expected '{}'", path.string(), format, kFormat);
  if (const std::string& version = entry(file, "format_version", path); version != kFormatVersion)
    throw CheckpointError("{}: written in version {} of the format, but this program reads version {}",
                          path.string(), version, kFormatVersion);
  return {.label = entry(file, "label", path),
          .classes = classes_of(file, path),
          .head = {},
          .checkpoint = entry(file, "checkpoint", path),
          .encoder_sha256 = entry(file, "encoder_sha256", path),
          .base = entry(file, "base", path),
          .base_weights_sha256 = entry(file, "base_weights_sha256", path),
          .base_step = integer(file, "base_step", path),
          .settings = entry(file, "settings", path),
          .program = entry(file, "program", path)};
}

/// The run directory that holds `path`, which must be a folder.
fs::path folder_of(const fs::path& path) {
  std::error_code problem;
  if (!fs::exists(path, problem))
    throw ConfigError("--checkpoint {}: there is nothing; expected a folder that scrna-train finetune wrote",
                      path.string());
  const std::string advice = fmt::format(
      "expected a folder that scrna-train finetune wrote; make one with: scrna-train finetune --checkpoint "
      "{} --label "
      "cell_type --out runs/types labelled.h5ad",
      path.string());
  if (!fs::is_directory(path, problem))
    throw CheckpointError("--checkpoint {}: is a file, and has no classification head; {}", path.string(),
                          advice);
  const fs::path folder = train::RunDirectory::containing(path);
  if (!fs::exists(folder / kFile, problem))
    throw CheckpointError("--checkpoint {}: has no classification head ({}); {}", path.string(), kFile,
                          advice);
  return folder;
}

}  // namespace

void save_encoder(const fs::path& folder, const model::Encoder& encoder, const train::TrainedModel& base,
                  int64_t step, Classifier& classifier) {
  const at::NoGradGuard no_grad;
  checkpoint::Contents contents;
  const ops::ParameterSet& parameters = encoder.parameters();
  for (std::size_t i = 0; i < parameters.all().size(); ++i)
    contents.model.tensors.emplace_back(parameters.all()[i].name,
                                        parameters.slice(parameters.values(), i).to(at::kCPU));
  contents.model.metadata = {{"format", "scrna-train"},
                             {"step", std::to_string(step)},
                             {"vocabulary_sha256", base.vocabulary_sha256},
                             {"config", base.config_text}};
  contents.optimizer.metadata = {{"format", "scrna-train"}};
  contents.state =
      Json{{"format_version", 1}, {"step", step}, {"finetuned_from", classifier.base}}.dump(2) + "\n";
  classifier.checkpoint =
      checkpoint::save(folder / "checkpoints", step, contents, kKeptCheckpoints).filename().string();
  classifier.encoder_sha256 = train::weights_hash(contents.model);
}

void save_classifier(const fs::path& folder, const Classifier& classifier) {
  checkpoint::Safetensors file;
  file.tensors = {{"classifier.input_mean", classifier.head.mean},
                  {"classifier.input_deviation", classifier.head.deviation},
                  {"classifier.weight", classifier.head.weight},
                  {"classifier.bias", classifier.head.bias}};
  file.metadata = {{"format", kFormat},
                   {"format_version", kFormatVersion},
                   {"label", classifier.label},
                   {"classes", Json(classifier.classes).dump()},
                   {"checkpoint", classifier.checkpoint},
                   {"encoder_sha256", classifier.encoder_sha256},
                   {"base", classifier.base},
                   {"base_weights_sha256", classifier.base_weights_sha256},
                   {"base_step", std::to_string(classifier.base_step)},
                   {"settings", classifier.settings},
                   {"program", classifier.program}};
  checkpoint::save_safetensors(folder / kFile, file);
}

FinetunedModel load_finetuned(const fs::path& path) {
  const fs::path folder = folder_of(path), file = folder / kFile;
  const checkpoint::Safetensors contents = checkpoint::load_safetensors(file);
  FinetunedModel model{.folder = folder,
                       .encoder = {},
                       .classifier = read_classifier(file, contents),
                       .classifier_sha256 = {}};
  model.classifier_sha256 = sha256_of_file(file);
  Classifier& classifier = model.classifier;
  const fs::path checkpoint = folder / "checkpoints" / classifier.checkpoint;
  // One of ours and nothing above it, whatever the file says.
  if (fs::path(classifier.checkpoint).filename() != fs::path(classifier.checkpoint) ||
      !classifier.checkpoint.starts_with("step-"))
    throw CheckpointError("{}: names '{}' as the checkpoint of its encoder, expected step-NNNNNNNN",
                          file.string(), classifier.checkpoint);
  // "step-00000176" of --checkpoint runs/types/checkpoints/step-00000176; the classifier fits one alone.
  const std::string named = path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
  if (named.starts_with("step-") && named != classifier.checkpoint)
    throw CheckpointError("--checkpoint {}: the classifier in {} belongs to {}; name {}", path.string(), folder.string(),
                          classifier.checkpoint, folder.string());
  model.encoder = std::make_shared<const train::TrainedModel>(train::load_trained_model(checkpoint));
  if (model.encoder->weights_sha256 != classifier.encoder_sha256) {
    throw CheckpointError(
        "{}: belongs to an encoder with other weights (SHA-256 {:.12}...) than {} ({:.12}...); files of "
        "different runs were "
        "mixed",
        file.string(), classifier.encoder_sha256, checkpoint.string(), model.encoder->weights_sha256);
  }
  const int64_t width = model.encoder->config.model.width, num_classes = std::ssize(classifier.classes);
  classifier.head = {.mean = tensor(contents, "classifier.input_mean", {width}, file),
                     .deviation = tensor(contents, "classifier.input_deviation", {width}, file),
                     .weight = tensor(contents, "classifier.weight", {num_classes, width}, file),
                     .bias = tensor(contents, "classifier.bias", {num_classes}, file)};
  if (!classifier.head.deviation.gt(0).all().item<bool>())
    throw CheckpointError("{}: 'classifier.input_deviation' has numbers that are not above 0", file.string());
  return model;
}

}  // namespace scrna::finetune
