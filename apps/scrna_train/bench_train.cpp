// scrna-train bench train: lib/bench/train_bench.h with a run's configuration, as text on standard output
// (--row: as one line of a table) and, with --json, as a file.
#include <memory>
#include <string>
#include <vector>

#include "apps/scrna_train/bench_report.h"
#include "apps/scrna_train/bench_train_report.h"
#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/fields.h"
#include "apps/scrna_train/wait_policy.h"
#include "lib/config/config.h"
#include "lib/core/files.h"
#include "lib/core/log.h"

namespace scrna::app {
namespace {

struct BenchTrainCommand {
  std::string config;
  std::vector<std::string> overrides;
  std::string attention;  // empty: as the configuration says
  std::string json;
  bool row = false;
};

train::TrainConfig read_config(const BenchTrainCommand& command, const bench::TrainBenchOptions& options) {
  if (command.config.empty()) {
    throw ConfigError(
        "--config is missing; expected a file, for example: scrna-train bench train --config "
        "configs/160m.yaml");
  }
  std::vector<std::string> overrides = command.overrides;
  overrides.push_back(fmt::format("tokenizer.max_tokens={}", options.context));
  if (!command.attention.empty()) overrides.push_back("model.attention=" + command.attention);
  return config::load<train::TrainConfig>(command.config, overrides);
}

ExitCode bench_train(const BenchTrainCommand& command, const bench::TrainBenchOptions& options) {
  wait_without_spinning();  // as a training run waits
  TrainBenchReport report{
      .config = read_config(command, options), .options = options, .machine = {}, .result = {}};
  if (!command.json.empty()) check_json_target(command.json, "train.json");
  report.result = bench::bench_training(report.config, options,
                                        [](std::string_view part) { log::info("[bench] {}", part); });
  report.machine = report.on_gpu() ? bench::gpu_machine() : bench::cpu_machine();
  print(command.row ? train_bench_row(report) : train_bench_text(report));
  if (!command.json.empty()) write_file_atomically(command.json, train_bench_json(report).dump(1) + "\n");
  return ExitCode::kDone;
}

}  // namespace

void add_bench_train(Program& program, CLI::App& group) {
  auto command = std::make_shared<BenchTrainCommand>();
  auto options = std::make_shared<bench::TrainBenchOptions>();
  CLI::App& app = add_command(
      group, program, "train",
      "measures optimizer steps of a configured encoder on synthetic cells: time, what the kernels of a step "
      "spend it "
      "on, cells and tokens per second, model FLOP/s and their share of what matrix products reach, peak "
      "memory.",
      {{"scrna-train bench train --config configs/160m.yaml --json train.json",
        "32 cells with lengths as in CELLxGENE on the first GPU, half a minute"},
       {"scrna-train bench train --config configs/160m.yaml --lengths full --attention softmax",
        "8 cells of 8,192 tokens, the other kind of attention"},
       {"scrna-train bench train --config configs/400m.yaml --context 2048 --set train.probe_queries=0",
        "cells cut to 2,048 tokens, a setting changed"},
       {"scrna-train bench train --config configs/demo.yaml --device cpu --cells 4 --context 1024 "
        "--vocabulary 2000",
        "a small model on the processor"}},
      [command, options] { return bench_train(*command, *options); });
  app.add_option("--config", command->config, "settings of the run to measure, YAML (no data is read)")
      ->type_name("FILE.yaml");
  app.add_option("--set", command->overrides,
                 "one setting over the file's, for example model.dropout=0; repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  add_fields(app, options);
  app.add_option("--attention", command->attention, "sigmoid or softmax, over the file's model.attention")
      ->type_name("NAME");
  app.add_flag("--row", command->row,
               "print one line of a Markdown table instead: lib/train/README.md has its head");
  app.add_option("--json", command->json,
                 "also write everything to this file, which is replaced if it exists")
      ->type_name("FILE");
}

}  // namespace scrna::app
