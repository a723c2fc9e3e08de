#include "lib/stress/stress_plan.h"

#include <algorithm>
#include <set>

#include "lib/config/config.h"
#include "lib/config/values.h"
#include "lib/core/error.h"
#include "lib/train/flops.h"

namespace scrna::stress {
namespace {

using config::Node;
using Settings = std::vector<std::pair<std::string, std::string>>;

std::string text_of(const Node& node, const std::string& key) {
  if (node.kind == Node::Kind::kList) {
    std::string list;
    for (const Node& item : node.items) list += (list.empty() ? "" : ", ") + text_of(item, key);
    return "[" + list + "]";
  }
  if (node.kind == Node::Kind::kMap)
    throw ConfigError("{}: {}: expected a value, got a section", node.where, key);
  return node.scalar;
}

// {train: {steps: 5}} and {train.steps: 5} alike.
void flatten(const Node& node, const std::string& path, Settings& out) {
  if (node.kind == Node::Kind::kNull) return;
  if (node.kind != Node::Kind::kMap) {
    out.emplace_back(path, text_of(node, path));
    return;
  }
  for (const auto& [key, child] : node.entries) flatten(child, path.empty() ? key : path + "." + key, out);
}

// Short words for names of folders.
std::string word_of(const std::string& key, const std::string& value) {
  static constexpr std::pair<std::string_view, std::string_view> kShort[] = {
      {"model.attention", ""},        {"model.attention_bias", "bias-"},
      {"model.qk_norm", "qk-"},       {"model.width", "w"},
      {"model.num_layers", "l"},      {"optim.learning_rate", "lr"},
      {"optim.clip_norm", "clip"},    {"train.seed", "seed"},
      {"tokenizer.max_tokens", "ctx"}};
  const auto found = std::ranges::find(kShort, key, &std::pair<std::string_view, std::string_view>::first);
  std::string word =
      found != std::end(kShort) ? std::string(found->second) : key.substr(key.rfind('.') + 1) + "-";
  for (const char letter : value)
    word +=
        std::isalnum(static_cast<unsigned char>(letter)) || letter == '.' || letter == '-' || letter == '_'
            ? letter
            : '-';
  return word;
}

struct Axis {
  std::string key;
  std::vector<std::string> values;
};

Axis read_axis(const std::string& key, const Node& node) {
  Axis axis{key, {}};
  if (node.kind != Node::Kind::kList || node.items.empty()) {
    throw ConfigError("{}: axes.{}: expected a list of values, for example [1e-4, 1e-3]", node.where, key);
  }
  for (const Node& item : node.items) axis.values.push_back(text_of(item, key));
  if (std::set<std::string>(axis.values.begin(), axis.values.end()).size() != axis.values.size()) {
    throw ConfigError("{}: axes.{}: a value stands twice", node.where, key);
  }
  return axis;
}

void replace_axes(const std::vector<std::string>& overrides, std::vector<Axis>& axes) {
  for (const std::string& text : overrides) {
    const std::size_t equals = text.find('=');
    if (equals == std::string::npos) throw ConfigError("--axis {}: expected KEY=[a, b]", text);
    const std::string key = text.substr(0, equals);
    Node root = config::parse_text("{}", "--axis " + key);
    std::string value = text.substr(equals + 1);
    if (!value.starts_with('[')) value = "[" + value + "]";
    config::apply_override(root, "values=" + value);
    Axis axis = read_axis(key, *root.find("values"));
    const auto found = std::ranges::find(axes, key, &Axis::key);
    if (found == axes.end()) {
      axes.push_back(std::move(axis));
    } else {
      *found = std::move(axis);
    }
  }
}

void apply_all(const Settings& settings, Node& root) {
  for (const auto& [key, value] : settings) config::apply_override(root, key + "=" + value);
}

class Reader {
 public:
  Reader(const std::filesystem::path& file, const StressOverrides& overrides)
      : root_(config::parse_file(file)), overrides_(overrides) {
    config::refuse_unknown_keys(root_, "", {"title", "description", "base", "settings", "axes", "variants"});
    if (const Node* base = root_.find("base"); base != nullptr && !base->scalar.empty()) {
      base_ = config::parse_file(file.parent_path() / base->scalar);
    } else {
      base_ = config::parse_text("{}", file.string());
    }
    if (const Node* settings = root_.find("settings")) flatten(*settings, "", settings_);
    read_axes();
    read_variants();
    for (const std::string& setting : overrides_.settings) refuse_axis(setting.substr(0, setting.find('=')));
  }

  StressPlan plan() const {
    StressPlan plan{.title = scalar("title"), .description = scalar("description"), .arms = {}};
    for (const auto& [variant, variant_settings] : variants_) {
      std::vector<std::size_t> at(axes_.size(), 0);
      do plan.arms.push_back(arm(variant, variant_settings, at));
      while (next(at));
    }
    std::set<std::string> names;
    for (const Arm& arm : plan.arms) {
      if (!names.insert(arm.name).second)
        throw ConfigError("two arms are called {}: an axis and a variant set the same", arm.name);
    }
    return plan;
  }

 private:
  [[nodiscard]] std::string scalar(const std::string& key) const {
    const Node* node = root_.find(key);
    return node == nullptr ? std::string() : node->scalar;
  }

  // --set is over every arm's settings: of a key that tells arms apart it would make them the same under several names.
  void refuse_axis(const std::string& key) const {
    const auto tells_apart = [&](const std::string& path) {
      return path == key || path.starts_with(key + ".") || key.starts_with(path + ".");
    };
    for (const Axis& axis : axes_) {
      if (tells_apart(axis.key))
        throw ConfigError("--set {}: the arms differ in {}; choose its values with --axis '{}=[...]'", key, axis.key, axis.key);
    }
    for (const auto& [name, settings] : variants_) {
      for (const auto& [path, value] : settings) {
        if (tells_apart(path))
          throw ConfigError("--set {}: variant {} of the table sets {}; choose variants with --variant, or change the file", key,
                            name, path);
      }
    }
  }

  void read_axes() {
    if (const Node* axes = root_.find("axes")) {
      config::expect_section(*axes, "axes");
      for (const auto& [key, node] : axes->entries) axes_.push_back(read_axis(key, node));
    }
    replace_axes(overrides_.axes, axes_);
  }

  void read_variants() {
    if (const Node* variants = root_.find("variants")) {
      config::expect_section(*variants, "variants");
      for (const auto& [name, node] : variants->entries) {
        Settings settings;
        flatten(node, "", settings);
        variants_.emplace_back(name, std::move(settings));
      }
    }
    if (variants_.empty()) variants_.emplace_back("", Settings());
    for (const std::string& wanted : overrides_.variants) {
      if (std::ranges::find(variants_, wanted, &std::pair<std::string, Settings>::first) == variants_.end()) {
        std::string known;
        for (const auto& [name, settings] : variants_) known += (known.empty() ? "" : ", ") + name;
        throw ConfigError("--variant {}: the file has no such variant; it has {}", wanted,
                          known.empty() ? "none" : known);
      }
    }
    if (!overrides_.variants.empty()) {
      std::erase_if(variants_, [&](const auto& variant) {
        return std::ranges::find(overrides_.variants, variant.first) == overrides_.variants.end();
      });
    }
  }

  // The last axis runs fastest.
  bool next(std::vector<std::size_t>& at) const {
    for (std::size_t axis = axes_.size(); axis-- > 0;) {
      if (++at[axis] < axes_[axis].values.size()) return true;
      at[axis] = 0;
    }
    return false;
  }

  [[nodiscard]] Arm arm(const std::string& variant, const Settings& variant_settings,
                        const std::vector<std::size_t>& at) const {
    Arm arm{.name = variant, .settings = variant_settings, .config = {}};
    for (std::size_t axis = 0; axis < axes_.size(); ++axis) {
      const std::string& value = axes_[axis].values[at[axis]];
      arm.settings.emplace_back(axes_[axis].key, value);
      arm.name += (arm.name.empty() ? "" : "-") + word_of(axes_[axis].key, value);
    }
    if (arm.name.empty()) arm.name = "arm";
    Node root = base_;
    apply_all({{"train.on_divergence", "stop"}, {"monitor.loss_above_start_steps", "100"}}, root);
    apply_all(settings_, root);
    apply_all(arm.settings, root);
    for (const std::string& setting : overrides_.settings) config::apply_override(root, setting);
    if (overrides_.steps > 0) {
      config::apply_override(root, fmt::format("train.steps={}", overrides_.steps));
      const int64_t most = std::max<int64_t>(1, overrides_.steps / 10);
      const Node* optim = root.find("optim");
      const Node* warmup = optim == nullptr ? nullptr : optim->find("warmup_steps");
      int64_t steps = optim::OptimConfig().warmup_steps;
      if (warmup != nullptr) config::read_value(*warmup, "optim.warmup_steps", {}, steps);
      config::apply_override(root, fmt::format("optim.warmup_steps={}", std::min(steps, most)));
    }
    try {
      arm.config = config::from_node<train::TrainConfig>(root);
    } catch (const ConfigError& problem) {
      throw ConfigError("arm {}: {}", arm.name, problem.what());
    }
    if (arm.config.train.on_divergence != train::OnDivergence::kStop) {
      throw ConfigError(
          "arm {}: train.on_divergence must be stop: where an arm diverges is what the table is about",
          arm.name);
    }
    return arm;
  }

  Node root_, base_;
  const StressOverrides& overrides_;
  Settings settings_;
  std::vector<Axis> axes_;
  std::vector<std::pair<std::string, Settings>> variants_;
};

}  // namespace

StressPlan read_plan(const std::filesystem::path& file, const StressOverrides& overrides) {
  return Reader(file, overrides).plan();
}

double measured_tflops_per_second(model::Attention attention) {
  return attention == model::Attention::kSigmoid ? 469 : 295;
}

ArmCost cost_of(const train::TrainConfig& config, int64_t vocabulary_size, double tflops_per_second) {
  const int64_t length = config.tokenizer.max_tokens, cells = config.train.global_batch_cells;
  const train::StepLoad load{
      .cells = cells,
      .tokens = cells * length,
      .masked_tokens = static_cast<int64_t>(config.masking.fraction * static_cast<double>(cells * length)),
      .squared_lengths =
          static_cast<double>(cells) * static_cast<double>(length) * static_cast<double>(length),
      .rows = cells * length};
  const double flop = train::step_flop(config.model, vocabulary_size, load);
  return {.flop_per_step = flop,
          .gpu_hours = flop * static_cast<double>(config.train.steps) / (tflops_per_second * 1e12) / 3600};
}

}  // namespace scrna::stress
