// scrna-train launch: one process per GPU of this machine (lib/dist/launcher.h does the work). Options have
// torchrun's names, so that who knows one knows the other.
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/commands.h"
#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/dist/launcher.h"

namespace scrna::app {
namespace {

struct LaunchCommand {
  int64_t num_local_ranks = 1;
  int64_t num_machines = 1;
  int64_t machine = 0;
  std::string endpoint;
  int64_t max_restarts = 0;
  double stop_seconds = 30;
  std::vector<std::string> train;
};

// "gpu-01:29500", "[::1]:29500".
std::pair<std::string, int64_t> address_and_port(const std::string& endpoint) {
  const std::size_t colon = endpoint.rfind(':');
  int64_t port = 0;
  const char* const end = endpoint.data() + endpoint.size();
  if (colon != std::string::npos && colon > 0) {
    const auto [rest, problem] = std::from_chars(endpoint.data() + colon + 1, end, port);
    if (problem != std::errc() || rest != end) port = 0;
  }
  if (port < 1 || port > 65535) {
    throw ConfigError("--rdzv-endpoint: expected HOST:PORT, for example gpu-01:29500, got '{}'", endpoint);
  }
  std::string host = endpoint.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return {host, port};
}

// After a failure the run goes on from its newest checkpoint, or begins again when there is none.
std::vector<std::string> with_resume_auto(const std::vector<std::string>& train) {
  if (std::ranges::find(train, "--config") == train.end() &&
      std::ranges::none_of(train, [](const std::string& word) { return word.starts_with("--config="); })) {
    return train;  // --resume RUN: it goes on from its newest checkpoint anyway
  }
  std::vector<std::string> result;
  for (std::size_t i = 0; i < train.size(); ++i) {
    if (train[i] == "--resume") {
      ++i;
    } else if (!train[i].starts_with("--resume=")) {
      result.push_back(train[i]);
    }
  }
  result.insert(result.end(), {"--resume", "auto"});
  return result;
}

ExitCode launch_command(const LaunchCommand& command) {
  if (command.train.front() != "train") {
    throw ConfigError(
        "launch: '{}' does not run in several processes; expected: scrna-train launch --nproc-per-node 8 -- "
        "train ...",
        command.train.front());
  }
  if (command.machine >= command.num_machines) {
    throw ConfigError("--node-rank: {} of {} machines; expected 0 to {}", command.machine,
                      command.num_machines, command.num_machines - 1);
  }
  if (command.num_machines > 1 && command.endpoint.empty()) {
    throw ConfigError(
        "--nnodes: {} machines need a place to meet: --rdzv-endpoint HOST:PORT, an address of the machine "
        "with "
        "--node-rank 0 and a free port there, the same on all",
        command.num_machines);
  }
  dist::LaunchOptions options{.num_local_ranks = command.num_local_ranks,
                              .num_machines = command.num_machines,
                              .machine = command.machine,
                              .max_restarts = command.max_restarts,
                              .stop_seconds = command.stop_seconds};
  if (!command.endpoint.empty()) std::tie(options.address, options.port) = address_and_port(command.endpoint);
  const std::string program = std::filesystem::canonical("/proc/self/exe").string();
  options.command = {program};
  options.command.insert(options.command.end(), command.train.begin(), command.train.end());
  options.restart_command = {program};
  const std::vector<std::string> again = with_resume_auto(command.train);
  options.restart_command.insert(options.restart_command.end(), again.begin(), again.end());
  const dist::LaunchResult result = dist::launch(options);
  if (!result.message.empty()) throw Error(static_cast<ExitCode>(result.exit_code), result.message);
  if (result.num_restarts > 0) log::info("[launch] done after {} restart(s)", result.num_restarts);
  return static_cast<ExitCode>(result.exit_code);
}

}  // namespace

void add_launch(Program& program) {
  auto command = std::make_shared<LaunchCommand>();
  CLI::App& app = add_command(program, "launch",
                              "starts several processes of `train`, one per GPU (or several on the CPU), and "
                              "stays with them: their lines are shown "
                              "with the number of the process, signals are passed on, and when one fails all "
                              "end with its exit code. The same "
                              "program also runs under torchrun --no-python, mpirun and srun.",
                              {{"scrna-train launch --nproc-per-node 8 -- train --config configs/160m.yaml "
                                "--set data.files=cells.h5ad --set "
                                "run.dir=runs/big",
                                "eight GPUs of this machine"},
                               {"scrna-train launch --nproc-per-node 8 --nnodes 2 --node-rank 0 "
                                "--rdzv-endpoint gpu-01:29500 -- train ...",
                                "the first of two machines; the same on the second with --node-rank 1"},
                               {"scrna-train launch --nproc-per-node 8 --max-restarts 3 -- train ...",
                                "goes on from the newest checkpoint when a process dies, up to three times"}},
                              [command] { return launch_command(*command); });
  app.add_option("--nproc-per-node", command->num_local_ranks,
                 "processes on this machine: as many as it has GPUs")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1024}))
      ->default_str("1");
  app.add_option("--nnodes", command->num_machines, "machines; start this command on each")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{100000}))
      ->default_str("1");
  app.add_option("--node-rank", command->machine, "number of this machine, from 0")
      ->type_name("K")
      ->check(CLI::Range(int64_t{0}, int64_t{99999}))
      ->default_str("0");
  app.add_option(
         "--rdzv-endpoint", command->endpoint,
         "where the processes meet: an address of machine 0 and a free port there; without it, this machine")
      ->type_name("HOST:PORT");
  app.add_option("--max-restarts", command->max_restarts,
                 "start all again after a failure, up to so many times; not after exit codes 2, 3 and 4")
      ->type_name("N")
      ->check(CLI::Range(int64_t{0}, int64_t{1000000}))
      ->default_str("0");
  app.add_option("--stop-seconds", command->stop_seconds,
                 "seconds between asking processes to end after a failure and killing them")
      ->type_name("S")
      ->check(CLI::Range(0.0, 86400.0))
      ->default_str("30");
  app.add_option("command", command->train, "after --: the command that each process runs")
      ->required()
      ->type_name("COMMAND");
}

}  // namespace scrna::app
