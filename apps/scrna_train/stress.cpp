// scrna-train stress: a table of training runs that differ in a few settings, and what it says to the paper's
// claims.
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <ATen/Context.h>
#include <nlohmann/json.hpp>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/commands.h"
#include "lib/bench/machine.h"
#include "lib/config/config.h"
#include "lib/core/files.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"
#include "lib/data/build_vocabulary.h"
#include "lib/data/cell_source.h"
#include "lib/stress/arm_runner.h"
#include "lib/stress/stress_report.h"

namespace scrna::app {
namespace {

namespace fs = std::filesystem;

struct StressCommand {
  std::string config, out = "runs/stress";
  stress::StressOverrides overrides;
  std::string gpus;
  int64_t jobs_per_gpu = 1;
  double minutes = 0;
  double tflops = 0;
  int64_t vocabulary_size = 43804;
  bool only_plan = false, only_report = false;
};

std::vector<int64_t> numbers_of(const std::string& text) {
  std::vector<int64_t> numbers;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    int64_t number = -1;
    const auto [last, problem] = std::from_chars(text.data() + begin, text.data() + end, number);
    if (problem != std::errc() || last != text.data() + end || number < 0) {
      throw ConfigError("--gpus {}: expected device numbers, for example 0,1,2", text);
    }
    numbers.push_back(number);
    begin = end + 1;
  }
  return numbers;
}

// What the table will cost, if every cell fills its context.
std::string plan_text(const stress::StressPlan& plan, const StressCommand& command) {
  std::string text = fmt::format("{}\n  {} arms:\n", plan.title, plan.arms.size());
  double hours = 0, flop = 0;
  for (const stress::Arm& arm : plan.arms) {
    const double tflops =
        command.tflops > 0 ? command.tflops : stress::measured_tflops_per_second(arm.config.model.attention);
    const stress::ArmCost cost = stress::cost_of(arm.config, command.vocabulary_size, tflops);
    hours += cost.gpu_hours;
    flop += cost.flop_per_step * static_cast<double>(arm.config.train.steps);
    text += fmt::format("    {:<40}{:>9} steps{:>12.3g} PFLOP a step{:>10.3g} GPU-hours\n", arm.name,
                        grouped(arm.config.train.steps), cost.flop_per_step * 1e-15, cost.gpu_hours);
  }
  return text + fmt::format(
                    "  together at most {:.3g} GPU-hours ({:.3g} EFLOP), if every cell fills its context, "
                    "the vocabulary has {} tokens, and\n"
                    "  a GPU reaches {} of the model (as one H200 did with 160M parameters; small models "
                    "reach less)\n",
                    hours, flop * 1e-18, grouped(command.vocabulary_size),
                    command.tflops > 0
                        ? fmt::format("{:.0f} TFLOP/s", command.tflops)
                        : fmt::format("{:.0f} TFLOP/s with sigmoid and {:.0f} with softmax",
                                      stress::measured_tflops_per_second(model::Attention::kSigmoid),
                                      stress::measured_tflops_per_second(model::Attention::kSoftmax)));
}

// One vocabulary for all arms, instead of a pass over the cells in each.
void share_vocabulary(stress::StressPlan& plan, const fs::path& out) {
  const data::DataConfig& data = plan.arms.front().config.data;
  const bool is_given = std::ranges::any_of(
      plan.arms, [](const stress::Arm& arm) { return !arm.config.data.vocabulary.empty(); });
  const bool is_common = std::ranges::all_of(
      plan.arms, [&](const stress::Arm& arm) { return config::differences(arm.config.data, data).empty(); });
  if (is_given || !is_common) return;
  const fs::path file = out / "vocabulary.tsv";
  if (!fs::exists(file)) {
    const std::vector<data::CellSource> sources = data::open_sources(data);
    data::build_vocabulary(sources, data.vocabulary_min_cells, [](std::string_view, int64_t, int64_t) {
      if (stop_signal() != 0) throw Interrupted("stopped by signal {} before the first arm", stop_signal());
    }).save(file);
    log::info("[stress] vocabulary of all arms: {}", file.string());
  }
  for (stress::Arm& arm : plan.arms)
    arm.config.data.vocabulary = fs::absolute(file).lexically_normal().string();
}

std::vector<std::pair<std::string, std::string>> machine_facts() {
  const bench::Machine machine = at::hasCUDA() ? bench::gpu_machine() : bench::cpu_machine();
  std::vector<std::pair<std::string, std::string>> facts = {
      {at::hasCUDA() ? "GPU" : "processor", machine.name},
      {"memory", fmt::format("{:.0f} GiB", machine.memory_gib)},
      {"program", program_version()},
      {"LibTorch", libtorch_version()}};
  if (!machine.driver.empty()) facts.emplace_back("driver", machine.driver);
  return facts;
}

// The command as it can be typed again; kept in stress.json by the run that trained, for reports made later.
std::string command_text(const StressCommand& command) {
  std::string text = "scrna-train stress --config " + command.config + " --out " + command.out;
  for (const std::string& setting : command.overrides.settings) text += " --set '" + setting + "'";
  for (const std::string& axis : command.overrides.axes) text += " --axis '" + axis + "'";
  for (const std::string& variant : command.overrides.variants) text += " --variant " + variant;
  if (command.overrides.steps > 0) text += fmt::format(" --steps {}", command.overrides.steps);
  if (!command.gpus.empty()) text += " --gpus " + command.gpus;
  if (command.jobs_per_gpu != 1) text += fmt::format(" --jobs-per-gpu {}", command.jobs_per_gpu);
  return text;
}

void write_record(const stress::StressPlan& plan, const StressCommand& command,
                  const std::vector<stress::ArmResult>& results, const fs::path& file) {
  nlohmann::ordered_json json{{"title", plan.title},
                              {"command", command_text(command)},
                              {"machine", nlohmann::ordered_json::object()},
                              {"arms", nlohmann::ordered_json::array()}};
  for (const auto& [key, value] : machine_facts()) json["machine"][key] = value;
  for (std::size_t i = 0; i < plan.arms.size(); ++i) {
    nlohmann::ordered_json settings = nlohmann::ordered_json::object();
    for (const auto& [key, value] : plan.arms[i].settings) settings[key] = value;
    json["arms"].push_back(
        {{"name", plan.arms[i].name}, {"settings", settings}, {"failure", results[i].failure}});
  }
  write_file_atomically(file, json.dump(1) + "\n");
}

void write_report(const stress::StressPlan& plan, const stress::RunnerOptions& options,
                  const fs::path& page) {
  stress::StressReport report{.title = plan.title,
                              .description = plan.description,
                              .machine = {},
                              .command = {},
                              .arms = {},
                              .failures = {},
                              .planned = {}};
  if (const fs::path record = options.out / "stress.json"; fs::exists(record)) {
    const auto json = nlohmann::ordered_json::parse(read_file(record), nullptr, false);
    if (!json.is_object() || !json.contains("machine") || !json.contains("arms"))
      throw DataError("{}: not the record of a stress table", record.string());
    for (const auto& [key, value] : json["machine"].items())
      report.machine.emplace_back(key, value.get<std::string>());
    report.command = json.value("command", "");
    for (const auto& arm : json["arms"]) {
      if (const std::string failure = arm.value("failure", ""); !failure.empty())
        report.failures.emplace_back(arm.value("name", ""), failure);
    }
  }
  for (const stress::Arm& arm : plan.arms) report.planned.push_back(arm.name);
  report.arms = stress::read_arms(plan, options);
  stress_report(report).write(page);
}

ExitCode stress_command(const StressCommand& command) {
  stress::StressPlan plan = stress::read_plan(command.config, command.overrides);
  print(plan_text(plan, command));
  if (command.only_plan) return ExitCode::kDone;
  const stress::RunnerOptions options{.program = fs::read_symlink("/proc/self/exe"),
                                      .out = command.out,
                                      .gpus = numbers_of(command.gpus),
                                      .jobs_per_gpu = command.jobs_per_gpu,
                                      .seconds = command.minutes * 60};
  const fs::path page = fs::absolute(options.out / "report.html").lexically_normal();
  if (command.only_report) {
    write_report(plan, options, page);
    print(page.string() + "\n");
    return ExitCode::kDone;
  }
  install_stop_signal_handlers();
  fs::create_directories(options.out);
  share_vocabulary(plan, options.out);
  // At once, so that the report of a table that was cut off knows its machine, too.
  write_record(plan, command, std::vector<stress::ArmResult>(plan.arms.size()), options.out / "stress.json");
  const std::vector<stress::ArmResult> results = stress::run_arms(plan, options);
  write_record(plan, command, results, options.out / "stress.json");
  write_report(plan, options, page);
  const auto count = [&](stress::ArmState state) {
    return std::ranges::count(results, state, &stress::ArmResult::state);
  };
  print(fmt::format("\n{} arms finished, {} diverged, {} failed\n  {}\n", count(stress::ArmState::kFinished),
                    count(stress::ArmState::kDiverged), count(stress::ArmState::kFailed), page.string()));
  if (const auto num_waiting = count(stress::ArmState::kWaiting); num_waiting > 0)
    print(fmt::format("  {} arms were not begun within {:g} minutes; the same command goes on\n", num_waiting,
                      command.minutes));
  if (stop_signal() != 0) {
    print("  stopped by a signal; the same command goes on\n");
    return ExitCode::kSavedAfterSignal;
  }
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (results[i].state == stress::ArmState::kFailed) {
      throw DeviceError("arm {} failed: {} ({} says more); the same command runs what has not ended",
                        plan.arms[i].name, results[i].failure,
                        (options.out / (plan.arms[i].name + ".log")).string());
    }
  }
  return ExitCode::kDone;
}

}  // namespace

void add_stress(Program& program) {
  auto command = std::make_shared<StressCommand>();
  CLI::App& app = add_command(
      program, "stress",
      "trains a table of arms (attention x clipping x learning rate x seed ...) declared in YAML, each an "
      "ordinary run directory, and "
      "ends with one report: the paper's panels, where arms diverged, and a verdict on each of its claims. "
      "An arm that diverges is "
      "recorded and ends; the table goes on. The same command again goes on where a table was interrupted.",
      {{"scrna-train stress --config configs/stress/demo_cpu.yaml --set data.files=cells.h5ad --out "
        "runs/stress",
        "minutes on a laptop"},
       {"scrna-train stress --config configs/stress/paper_160m_8k.yaml --plan",
        "the paper's test: its arms and what they cost"},
       {"scrna-train stress --config configs/stress/proxy.yaml --set data.files=cells.h5ad --gpus 0,1,2,3 "
        "--jobs-per-gpu 2",
        "eight arms at a time on four GPUs"},
       {"scrna-train stress --config configs/stress/proxy.yaml --set data.files=cells.h5ad --steps 200 "
        "--axis 'model.width=[256]' --variant unclipped",
        "a part of the table, shortened"},
       {"scrna-train stress --config configs/stress/proxy.yaml --set data.files=cells.h5ad --minutes 50",
        "as many arms as begin within 50 minutes, for a job of an hour; again for the rest"}},
      [command] { return stress_command(*command); });
  app.add_option("--config", command->config, "the table, YAML (configs/stress/README.md)")
      ->required()
      ->type_name("FILE.yaml");
  app.add_option("--out", command->out, "folder of the arms and the report; made if it is not there")
      ->type_name("FOLDER")
      ->default_str(command->out);
  app.add_option("--set", command->overrides.settings,
                 "one setting over every arm's, for example data.files=cells.h5ad; repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.add_option("--axis", command->overrides.axes,
                 "other values of an axis, for example train.seed=[1]; repeatable")
      ->type_name("KEY=[A, B]")
      ->allow_extra_args(false);
  app.add_option("--variant", command->overrides.variants, "only this variant of the file; repeatable")
      ->type_name("NAME")
      ->allow_extra_args(false);
  app.add_option(
         "--steps", command->overrides.steps,
         "steps of every arm instead of the file's; a warm-up longer than a tenth of them is cut to that")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  app.add_option("--gpus", command->gpus,
                 "GPUs to use, by number; without it the arms share the first, or the CPU")
      ->type_name("0,1,...");
  app.add_option("--jobs-per-gpu", command->jobs_per_gpu, "arms side by side on each GPU (or on the CPU)")
      ->type_name("N")
      ->default_str("1")
      ->check(CLI::PositiveNumber);
  app.add_option("--minutes", command->minutes,
                 "begin no further arm after so many minutes; those that run go on to their end, the report "
                 "says which are "
                 "missing, and the same command goes on with them")
      ->type_name("M")
      ->check(CLI::PositiveNumber);
  app.add_option("--tflops", command->tflops,
                 "TFLOP/s of the model that a GPU is taken to reach, for the cost that is printed; default: "
                 "as measured with 160M parameters on an H200")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  app.add_option("--vocabulary-size", command->vocabulary_size, "tokens of the vocabulary, for the same")
      ->type_name("N")
      ->default_str("43804")
      ->check(CLI::PositiveNumber);
  app.add_flag("--plan", command->only_plan, "print the arms and their cost, and end");
  app.add_flag("--report", command->only_report, "write the report of what there is, and end");
}

}  // namespace scrna::app
