// scrna-train replay: a step that diverged, done again in memory and compared with what the run wrote down of it.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/commands.h"
#include "apps/scrna_train/wait_policy.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"
#include "lib/train/replay.h"

namespace scrna::app {
namespace {

struct ReplayCommand {
  std::string dump;
  std::vector<std::string> overrides;
};

std::string text_of(const train::ReplayReport& report) {
  const train::StepDump& dump = report.dump;
  const auto [shortest, longest] = std::ranges::minmax(dump.cells, {}, &train::DumpedCell::tokens);
  std::string text = fmt::format(
      "step {}, {}\n"
      "  {} cells of {} to {} tokens, {} tokens in all, {} of them masked; seed {}, position in the data {}\n"
      "  done again from {}\n"
      "  {:<14}{:>16}{:>16}\n"
      "  {:<14}{:>16.6g}{:>16.6g}\n"
      "  {:<14}{:>16.6g}{:>16.6g}   limit {:.6g}\n",
      dump.step, dump.reason, dump.cells.size(), shortest.tokens, longest.tokens, grouped(dump.tokens), grouped(dump.masked_tokens),
      dump.seed, dump.data_step, report.checkpoint.empty() ? "the beginning of the run" : report.checkpoint.string(), "", "then", "now",
      "loss", dump.loss, report.step.loss, "gradient norm", dump.grad_norm, report.step.grad_norm, dump.grad_norm_limit);
  text += fmt::format("\n  {:<12}{:>15}{:>15}{:>15}{:>15}{:>15}\n", "layer", "gradient then", "now", "weights", "largest |score|", "residual RMS");
  for (std::size_t i = 0; i < dump.layer_names.size() && i < report.step.grad_norm_per_layer.size(); ++i) {
    text += fmt::format("  {:<12}{:>15.6g}{:>15.6g}", dump.layer_names[i], dump.grad_norm_per_layer[i], report.step.grad_norm_per_layer[i]);
    if (report.step.monitor) {
      text += fmt::format("{:>15.6g}", report.step.monitor->weight_norm.at(i));
      const std::size_t block = i - 1;  // the embedding comes first, the head last
      if (i > 0 && block < report.step.monitor->blocks.size()) {
        const auto& values = report.step.monitor->blocks[block];
        text += fmt::format("{:>15.6g}{:>15.6g}", values[static_cast<std::size_t>(model::LayerStatistic::kExactMaxScore)],
                            values[static_cast<std::size_t>(model::LayerStatistic::kResidualRms)]);
      }
    }
    text += "\n";
  }
  if (report.differences.empty()) return text + "\n  the same bits as in the run: cells, loss, norms and scores\n";
  text += fmt::format("\n  {} number(s) differ, for example {}\n", report.differences.size(), report.differences.front());
  if (!report.is_exact_expected) text += fmt::format("  that was to be expected: {}\n", report.why_not_exact);
  return text;
}

ExitCode replay_command(const ReplayCommand& command) {
  wait_without_spinning();
  install_stop_signal_handlers();
  const train::ReplayReport report = train::replay(command.dump, command.overrides);
  print(text_of(report));
  if (!report.differences.empty() && report.is_exact_expected) {
    throw NumericError("{}: the step came out differently: {}; the data, the settings or the program changed since", command.dump,
                       report.differences.front());
  }
  return ExitCode::kDone;
}

}  // namespace

void add_replay(Program& program) {
  auto command = std::make_shared<ReplayCommand>();
  CLI::App& app = add_command(
      program, "replay",
      "does a step again that diverged, from the newest checkpoint before it, compares it bit for bit with what the run wrote "
      "down, and shows weights, activations and exact scores of that step. Writes nothing; exit code 4 when it differs.",
      {{"scrna-train replay runs/first/divergence/step-00000137.json", "the step as it was"},
       {"scrna-train replay runs/first/divergence/step-00000137.json --set train.device=cpu --set train.precision=fp32",
        "the same in fp32 on the CPU, for comparison"}},
      [command] { return replay_command(*command); });
  app.add_option("DUMP.json", command->dump, "divergence/step-NNNNNNNN.json of a run")->type_name("DUMP.json")->required();
  app.add_option("--set", command->overrides, "one setting over the run's, for example train.device=cpu; repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

}  // namespace scrna::app
