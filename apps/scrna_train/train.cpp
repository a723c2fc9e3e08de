// scrna-train train: a configuration in, a run directory out. Flags choose the configuration and where to begin; every
// setting is a key of the configuration (configs/README.md), none is a flag of its own.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/commands.h"
#include "apps/scrna_train/wait_policy.h"
#include "lib/config/config.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"
#include "lib/dist/communicator.h"
#include "lib/dist/world.h"
#include "lib/train/check.h"
#include "lib/train/config_reference.h"
#include "lib/train/prepared_run.h"
#include "lib/train/run_directory.h"
#include "lib/train/trainer.h"

namespace scrna::app {
namespace {

struct TrainCommand {
  std::string config;
  std::vector<std::string> overrides;
  std::string resume;
  bool check = false;
  bool print_config = false;
  bool print_reference = false;
};

// The settings of an earlier run. It may have been moved, or named from another folder than the one it began in: run.dir
// is where it is now, unless --set says otherwise.
train::TrainConfig config_of_run(const std::filesystem::path& run, const std::vector<std::string>& overrides) {
  auto config = config::load<train::TrainConfig>(run / "config.yaml", overrides);
  const bool is_set = std::ranges::any_of(overrides, [](const auto& text) { return text.starts_with("run.dir="); });
  if (!is_set && std::filesystem::weakly_canonical(config.run.dir) != run) config.run.dir = run.string();
  return config;
}

// --config, else the resumed run's own file, else the defaults; then --set.
train::TrainConfig read_config(const TrainCommand& command) {
  if (!command.config.empty()) return config::load<train::TrainConfig>(command.config, command.overrides);
  if (!command.resume.empty() && command.resume != "latest" && command.resume != "auto") {
    return config_of_run(train::RunDirectory::containing(command.resume), command.overrides);
  }
  if (command.overrides.empty() && !command.print_config) {
    throw ConfigError("--config is missing; expected a file, for example: scrna-train train --config configs/demo.yaml "
                      "--set data.files=cells.h5ad --set run.dir=runs/first");
  }
  config::Node root = config::parse_text("{}", "defaults");
  for (const std::string& assignment : command.overrides) config::apply_override(root, assignment);
  return config::from_node<train::TrainConfig>(root);
}

// The held-out loss beside what it costs to guess: whether the model learned anything.
std::string heldout_summary(const train::TrainResult& result) {
  if (!result.last_heldout) return "";
  const eval::HeldoutLoss& last = *result.last_heldout;
  const double gain = last.gene_frequency_loss - last.loss;
  std::string text = fmt::format(
      "  held-out loss     {:.3f} nats per masked gene, on {} cells the model was not trained on\n"
      "    uniform guess   {:.3f} (every gene of the vocabulary equally likely)\n"
      "    gene frequency  {:.3f} (each gene as likely as it is common)\n",
      last.loss, grouped(last.cells), last.uniform_loss, last.gene_frequency_loss);
  if (gain > 0) {
    text += fmt::format("  The model gives the hidden gene {:.2f} times the probability that its frequency gives it.\n",
                        std::exp(gain));
  } else {
    text += "  The model does not beat the gene frequencies yet: train longer (train.steps), or raise "
            "optim.learning_rate.\n";
  }
  return text;
}

// "281 cells/s, 573 k tokens/s, ...": how well the machine was used, without evaluation and saving.
std::string speed_summary(const train::MeterReading& meters) {
  std::string text = fmt::format(
      "  speed            {:.1f} cells/s, {} tokens/s, {:.3g} TFLOP/s of the model{}\n"
      "                   {:.1f} % of the time waiting for data, {:.1f} % padding",
      meters.cells_per_second, train::short_count(meters.tokens_per_second), meters.flop_per_second * 1e-12,
      meters.mfu ? fmt::format(" ({:.1f} % of what matrix products reach here)", 100 * *meters.mfu) : "",
      100 * meters.data_wait_share, 100 * meters.padding_share);
  if (meters.peak_device_memory_bytes) {
    text += fmt::format(", at most {:.2f} GB of the GPU's memory",
                        static_cast<double>(*meters.peak_device_memory_bytes) / 1e9);
  }
  return text + "\n";
}

std::string summary(const train::TrainResult& result) {
  const double seconds = std::max(result.seconds, 1e-9);
  std::string text = fmt::format(
      "\n{}: {} steps, {} cells, {} tokens in {} ({:.0f} cells/s)\n", result.run_directory.string(),
      grouped(result.steps), grouped(result.cells), train::short_count(static_cast<double>(result.tokens)),
      clock_text(result.seconds), static_cast<double>(result.cells) / seconds);
  text += heldout_summary(result);
  if (result.meters.cells_per_second > 0) text += speed_summary(result.meters);
  text += fmt::format(
      "  {}   loss, gradient norms and speed of every step\n", (result.run_directory / "metrics.jsonl").string());
  if (!result.checkpoint.empty()) text += fmt::format("  {}   weights (safetensors), optimizer, state\n", result.checkpoint.string());
  return text;
}

// The plan of a step's memory as a table, and what the step that was done took.
std::string memory_table(const train::CheckReport& report) {
  const auto gigabytes = [](int64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  std::string text = fmt::format("  {}, a forward pass of {} tokens will need about\n",
                                 report.measured ? "of the GPU's memory" : "on a GPU", grouped(report.plan_tokens));
  for (const auto& [part, name] : train::kMemoryParts) {
    if (report.plan.part(part) == 0) continue;
    text += fmt::format("    {:<20}{:>10}B\n", name, train::short_count(static_cast<double>(report.plan.part(part))));
  }
  text += fmt::format("    {:<20}{:>10}B, most at: {}\n", "together",
                      train::short_count(static_cast<double>(report.plan.total_bytes())), report.plan.moment);
  if (report.plan.nccl_bytes > 0)
    text += fmt::format("    {:<20}{:>10}B besides\n", "NCCL",
                        train::short_count(static_cast<double>(report.plan.nccl_bytes)));
  if (!report.measured) return text;
  const train::CheckReport::Measured& step = *report.measured;
  return text + fmt::format("    this step, of up to {} tokens a pass: predicted {:.2f} GB, measured {:.2f} GB of {:.1f} GB\n",
                            grouped(step.tokens), gigabytes(step.predicted_bytes), gigabytes(step.peak_bytes),
                            gigabytes(step.total_bytes));
}

// The first rank looks; what it found is told to all, so that no rank reads a folder that is being renamed.
std::optional<train::ResumePoint> shared_resume_point(const std::string& argument,
                                                      const train::TrainConfig& config,
                                                      dist::Communicator& communicator) {
  if (argument.empty()) return std::nullopt;
  std::optional<train::ResumePoint> found;
  communicator.together([&] {
    if (!communicator.is_first()) return;
    found = argument == "auto" ? train::resume_or_begin(config.run.dir)
                               : train::find_resume_point(argument, config.run.dir);
  });
  const std::string run = communicator.all_gather(found ? found->run_directory.string() : "").at(0);
  const std::string checkpoint = communicator.all_gather(found ? found->checkpoint.string() : "").at(0);
  return run.empty() ? std::nullopt : std::optional(train::ResumePoint{run, checkpoint});
}

ExitCode check_command(const train::TrainConfig& config, const std::optional<train::ResumePoint>& resume,
                       at::Device device, dist::Communicator& communicator) {
  const train::CheckReport report = train::check(config, resume, device, communicator);
  if (!communicator.is_first()) return ExitCode::kDone;
  const double seconds = report.seconds_per_step * static_cast<double>(config.train.steps);
  print(fmt::format("check passed: {} parameters, {} cells to train on, {} held out\n"
                    "  one step of {} cells took {:.2f} s (loss {:.3f}); {} steps will take about {}\n"
                    "  peak memory of the process so far: {:.2f} GB\n"
                    "{}"
                    "  nothing was written; the same command without --check trains\n",
                    grouped(report.parameters), grouped(report.training_cells), grouped(report.heldout_cells),
                    config.train.global_batch_cells, report.seconds_per_step, report.loss,
                    grouped(config.train.steps), clock_text(seconds),
                    static_cast<double>(report.peak_memory_bytes) / 1e9, memory_table(report)));
  return ExitCode::kDone;
}

ExitCode train_command(const TrainCommand& command) {
  if (command.print_reference) {
    print(train::config_reference());
    return ExitCode::kDone;
  }
  const train::TrainConfig config = read_config(command);
  if (command.print_config) {
    print(config::dump(config));
    return ExitCode::kDone;
  }
  wait_without_spinning();
  const dist::World world = dist::world_from_environment();
  if (world.num_ranks > 1) show_no_bars();
  if (world.rank != 0) log::set_console_level(log::Level::kWarning);
  const at::Device device = train::choose_device(config.train.device, world);
  dist::Communicator communicator(world, device, std::chrono::seconds(config.dist.timeout_seconds));
  install_stop_signal_handlers();  // a signal ends a process at once that still waits for the others
  const std::optional<train::ResumePoint> resume = shared_resume_point(command.resume, config, communicator);
  if (command.check) return check_command(config, resume, device, communicator);
  const train::TrainResult result = train::train(config, resume, device, communicator);
  communicator.barrier();  // nobody's connections close while another still needs them
  if (communicator.is_first()) print(summary(result));
  if (result.stop_signal != 0) {
    if (!communicator.is_first()) return ExitCode::kSavedAfterSignal;
    print(fmt::format("  stopped by signal {} after step {}; everything is saved. To go on:\n"
                      "    scrna-train train --resume {}\n",
                      result.stop_signal, grouped(result.steps), result.run_directory.string()));
    return ExitCode::kSavedAfterSignal;
  }
  return ExitCode::kDone;
}

}  // namespace

void add_train(Program& program) {
  auto command = std::make_shared<TrainCommand>();
  CLI::App& app = add_command(
      program, "train",
      "trains an encoder on the cells of .h5ad files and writes a run directory: config.yaml, vocabulary.tsv, "
      "metrics.jsonl, log.txt and checkpoints/. Ctrl-C and SIGTERM save a checkpoint first (exit code 143).",
      {{"scrna-train train --config configs/demo.yaml --set data.files=cells.h5ad --set run.dir=runs/first",
        "a small model on your cells, minutes on a laptop"},
       {"scrna-train train --config configs/160m.yaml --set 'data.files=[a.h5ad, b/*.h5ad]' --set run.dir=runs/big "
        "--check",
        "looks at files and settings, does one step in memory, says how long all will take"},
       {"scrna-train train --resume runs/first", "goes on from the newest checkpoint of that run"},
       {"scrna-train train --config configs/160m.yaml --print-config > mine.yaml",
        "every setting with its meaning, to edit; configs/README.md lists them too"}},
      [command] { return train_command(*command); });
  app.add_option("--config", command->config, "settings, YAML; what it leaves out keeps its default")
      ->type_name("FILE.yaml");
  app.add_option("--set", command->overrides, "one setting over the file's, for example train.steps=500; repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  app.add_option("--resume", command->resume,
                 "go on with an earlier run: latest (the newest whole checkpoint in run.dir), a run "
                 "directory, or one "
                 "checkpoint folder; auto: latest if run.dir has a checkpoint, else begin")
      ->type_name("latest|auto|PATH");
  app.add_flag("--check", command->check, "everything up to one optimizer step, in memory; writes nothing");
  app.add_flag("--print-config", command->print_config, "print the resolved settings as YAML and end");
  app.add_flag("--print-reference", command->print_reference, "print what every setting means (configs/README.md) and end");
}

}  // namespace scrna::app
