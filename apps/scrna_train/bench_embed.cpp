// scrna-train bench embed: lib/bench/embed_bench.h with a run's configuration, as text on standard output
// and, with --json, as a file.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "apps/scrna_train/bench_report.h"
#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/fast_settings.h"
#include "apps/scrna_train/fields.h"
#include "apps/scrna_train/wait_policy.h"
#include "lib/bench/embed_bench.h"
#include "lib/config/config.h"
#include "lib/core/files.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"

namespace scrna::app {
namespace {

struct BenchEmbedCommand {
  std::string config;
  std::vector<std::string> overrides;
  std::string json;
  bool fast = false;
};

struct Report {
  train::TrainConfig config;
  bench::EmbedBenchOptions options;
  bench::Machine machine;
  bench::EmbedBenchResult result;
  [[nodiscard]] bool on_gpu() const { return options.device == bench::Device::kCuda; }
};

std::string text_of(const Report& report) {
  const bench::EmbedBenchResult& result = report.result;
  const model::ModelConfig& model = report.config.model;
  const auto [fastest, slowest] = std::ranges::minmax_element(result.seconds);
  std::string text = fmt::format(
      "{}\n{} parameters ({} layers x {}, {} heads, {} tokens in the vocabulary), {} products\n{}\n"
      "{} cells ({} lengths, longest {}), {} tokens, in {} forward passes; {} of layer {}; no files read\n\n",
      machine_words(report.machine, report.on_gpu()), grouped(result.parameters), model.num_layers,
      model.width, model.num_heads, grouped(report.options.vocabulary), result.compute_type, result.attention,
      grouped(result.load.cells), name_of(report.options.lengths), grouped(result.longest_cell_tokens),
      grouped(result.load.tokens), grouped(result.packs), eval::name_of(report.options.pooling),
      eval::resolve_layer(report.options.layer, model.num_layers));
  const auto line = [&](std::string_view what, const std::string& value) {
    text += fmt::format("  {:<20}{}\n", what, value);
  };
  line("all cells", fmt::format("{:.3f} s (median of {}; {:.3f} to {:.3f})", result.median_seconds,
                                result.seconds.size(), *fastest, *slowest));
  line("cells", fmt::format("{:.1f} per second", result.cells_per_second()));
  line("tokens", fmt::format("{} per second", grouped(static_cast<int64_t>(result.tokens_per_second()))));
  line("model FLOP",
       fmt::format("{:.4g} TFLOP/s, forward, without the head; {:.1f} % of the {:.4g} that large {} "
                   "products reach here",
                   result.flop_per_second() * 1e-12,
                   100 * result.flop_per_second() / result.ceiling_flop_per_second,
                   result.ceiling_flop_per_second * 1e-12, result.compute_type));
  line("peak memory", result.memory ? fmt::format("{:.2f} GB of the GPU",
                                                  static_cast<double>(result.memory->peak_bytes) / 1e9)
                                    : fmt::format("{:.2f} GB, the whole process",
                                                  static_cast<double>(result.peak_resident_bytes) / 1e9));
  return text;
}

nlohmann::ordered_json json_of(const Report& report) {
  const bench::EmbedBenchResult& result = report.result;
  const model::ModelConfig& model = report.config.model;
  nlohmann::ordered_json json{{"benchmark", "embed"}};
  json.update(machine_json(report.machine, report.on_gpu()));
  json["settings"] = {{"lengths", name_of(report.options.lengths)},
                      {"context", report.options.context},
                      {"vocabulary", report.options.vocabulary},
                      {"tokens_per_pack", report.options.tokens_per_pack},
                      {"pooling", eval::name_of(report.options.pooling)},
                      {"layer", eval::resolve_layer(report.options.layer, model.num_layers)},
                      {"attention", name_of(model.attention)},
                      {"attention_precision", name_of(model.attention_precision)},
                      {"residual_precision", name_of(model.residual_precision)},
                      {"gelu_precision", name_of(model.gelu_precision)},
                      {"num_layers", model.num_layers},
                      {"width", model.width},
                      {"num_heads", model.num_heads},
                      {"feed_forward_width", model.feed_forward_width},
                      {"compute_type", result.compute_type}};
  json["attention_implementation"] = result.attention;
  json["parameters"] = result.parameters;
  json["cells"] = result.load.cells;
  json["tokens"] = result.load.tokens;
  json["squared_lengths"] = result.load.squared_lengths;
  json["longest_cell_tokens"] = result.longest_cell_tokens;
  json["packs"] = result.packs;
  json["flop"] = result.flop;
  json["seconds"] = result.seconds;
  json["median_seconds"] = result.median_seconds;
  json["cells_per_second"] = result.cells_per_second();
  json["tokens_per_second"] = result.tokens_per_second();
  json["model_tflops_per_second"] = result.flop_per_second() * 1e-12;
  json["matrix_ceiling_tflops_per_second"] = result.ceiling_flop_per_second * 1e-12;
  json["peak_device_memory_bytes"] = nullptr;
  if (result.memory) json["peak_device_memory_bytes"] = result.memory->peak_bytes;
  json["peak_resident_bytes"] = result.peak_resident_bytes;
  return json;
}

ExitCode bench_embed(const BenchEmbedCommand& command, const bench::EmbedBenchOptions& options) {
  wait_without_spinning();  // as embed waits
  if (command.config.empty()) {
    throw ConfigError(
        "--config is missing; expected a file, for example: scrna-train bench embed --config "
        "configs/160m.yaml");
  }
  std::vector<std::string> overrides = command.fast ? fast_assignments() : std::vector<std::string>();
  overrides.insert(overrides.end(), command.overrides.begin(), command.overrides.end());
  overrides.push_back(fmt::format("tokenizer.max_tokens={}", options.context));
  Report report{.config = config::load<train::TrainConfig>(command.config, overrides),
                .options = options,
                .machine = {},
                .result = {}};
  if (!command.json.empty()) check_json_target(command.json, "embed.json");
  report.result = bench::bench_embedding(report.config, options,
                                         [](std::string_view part) { log::info("[bench] {}", part); });
  report.machine = report.on_gpu() ? bench::gpu_machine() : bench::cpu_machine();
  print(text_of(report));
  if (!command.json.empty()) write_file_atomically(command.json, json_of(report).dump(1) + "\n");
  return ExitCode::kDone;
}

}  // namespace

void add_bench_embed(Program& program, CLI::App& group) {
  auto command = std::make_shared<BenchEmbedCommand>();
  auto options = std::make_shared<bench::EmbedBenchOptions>();
  CLI::App& app = add_command(
      group, program, "embed",
      "measures how fast a configured encoder embeds synthetic cells: packing, forward passes, pooling and "
      "the copies "
      "to and from the GPU, without reading files.",
      {{"scrna-train bench embed --config configs/160m.yaml --json embed.json",
        "2,048 cells with lengths as in CELLxGENE on the first GPU, six times"},
       {"scrna-train bench embed --config configs/160m.yaml --context 4096 --fast",
        "another context, with what is faster and a little less exact"},
       {"scrna-train bench embed --config configs/demo.yaml --device cpu --cells 64 --vocabulary 2000",
        "a small model on the processor"}},
      [command, options] { return bench_embed(*command, *options); });
  app.add_option("--config", command->config, "settings of the model to measure, YAML (no data is read)")
      ->type_name("FILE.yaml");
  app.add_flag("--fast", command->fast, "what embed --fast does");
  app.add_option("--set", command->overrides,
                 "one setting over the file's, for example model.residual_precision=bf16; repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  add_fields(app, options);
  app.add_option("--json", command->json,
                 "also write everything to this file, which is replaced if it exists")
      ->type_name("FILE");
}

}  // namespace scrna::app
