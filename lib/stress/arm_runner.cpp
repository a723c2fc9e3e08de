#include "lib/stress/arm_runner.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <thread>

#include "lib/config/config.h"
#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/core/signals.h"

extern char** environ;

namespace scrna::stress {
namespace {

namespace fs = std::filesystem;

struct Running {
  std::size_t arm = 0;
  std::size_t slot = 0;
  pid_t pid = -1;
  double begin_seconds = 0;
};

fs::path config_file(const RunnerOptions& options, const Arm& arm) { return options.out / (arm.name + ".yaml"); }
fs::path log_file(const RunnerOptions& options, const Arm& arm) { return options.out / (arm.name + ".log"); }

pid_t start(const Arm& arm, const RunnerOptions& options, std::size_t slot) {
  std::vector<std::string> words = {options.program.string(), "train", "--config", config_file(options, arm).string(), "--resume", "auto"};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (options.gpus.empty() || std::strncmp(*variable, "CUDA_VISIBLE_DEVICES=", 21) != 0) variables.emplace_back(*variable);
  }
  if (!options.gpus.empty()) {
    variables.push_back(fmt::format("CUDA_VISIBLE_DEVICES={}", options.gpus[slot % options.gpus.size()]));
  }
  std::vector<char*> envp;
  for (std::string& variable : variables) envp.push_back(variable.data());
  envp.push_back(nullptr);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log_file(options, arm).c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  // A group of its own: Ctrl-C reaches this process alone, which passes it on once; a second signal would end an arm
  // before it has saved.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  pid_t pid = -1;
  const int problem = posix_spawn(&pid, options.program.c_str(), &files, &attributes, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
  if (problem != 0) throw DeviceError("arm {}: {} cannot be started: {}", arm.name, options.program.string(), std::strerror(problem));
  return pid;
}

// The error that the program ended with, or its last line.
std::string last_words(const fs::path& log) {
  const std::string text = fs::exists(log) ? read_file(log) : std::string();
  constexpr std::string_view kMark = "scrna-train: error: ";
  if (const std::size_t at = text.rfind(kMark); at != std::string::npos) {
    const std::size_t begin = at + kMark.size();
    return text.substr(begin, text.find('\n', begin) - begin);
  }
  const std::size_t end = text.find_last_not_of('\n');
  if (end == std::string::npos) return "it said nothing";
  const std::size_t begin = text.rfind('\n', end);
  return text.substr(begin == std::string::npos ? 0 : begin + 1, end - (begin == std::string::npos ? 0 : begin));
}

ArmResult result_of(const Arm& arm, const RunnerOptions& options, int status) {
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (code == static_cast<int>(ExitCode::kSavedAfterSignal)) return {ArmState::kInterrupted, {}};
  const ArmState state = state_of(options, arm);
  if ((code == 0 && state == ArmState::kFinished) || (code == static_cast<int>(ExitCode::kNumeric) && state == ArmState::kDiverged)) {
    return {state, {}};
  }
  return {ArmState::kFailed, fmt::format("{}: {}", WIFSIGNALED(status) ? fmt::format("killed by signal {}", WTERMSIG(status)) : fmt::format("exit code {}", code),
                                         last_words(log_file(options, arm)))};
}

std::string_view describe(ArmState state) {
  switch (state) {
    case ArmState::kFinished: return "finished";
    case ArmState::kDiverged: return "diverged";
    case ArmState::kFailed: return "failed";
    case ArmState::kInterrupted: return "interrupted";
    case ArmState::kWaiting: break;
  }
  return "waiting";
}

}  // namespace

fs::path folder_of(const RunnerOptions& options, const Arm& arm) { return options.out / arm.name; }

ArmState state_of(const RunnerOptions& options, const Arm& arm) {
  const fs::path folder = folder_of(options, arm);
  if (!fs::exists(folder / "config.yaml")) return ArmState::kWaiting;
  const report::RunData run = report::read_run(folder);
  return run.end() ? ArmState::kDiverged : run.is_finished() ? ArmState::kFinished : ArmState::kWaiting;
}

std::vector<ArmResult> run_arms(const StressPlan& plan, const RunnerOptions& options) {
  std::vector<ArmResult> results(plan.arms.size());
  std::deque<std::size_t> waiting;
  for (std::size_t i = 0; i < plan.arms.size(); ++i) {
    const Arm& arm = plan.arms[i];
    train::TrainConfig config = arm.config;
    config.run.dir = folder_of(options, arm).string();
    write_file_atomically(config_file(options, arm), config::dump(config));
    results[i].state = state_of(options, arm);
    if (results[i].state == ArmState::kWaiting) waiting.push_back(i);
  }
  if (waiting.size() < plan.arms.size()) log::info("[stress] {} of {} arms have ended before", plan.arms.size() - waiting.size(), plan.arms.size());

  const std::size_t num_slots = static_cast<std::size_t>(options.jobs_per_gpu) * std::max<std::size_t>(1, options.gpus.size());
  std::deque<std::size_t> free_slots;
  for (std::size_t slot = 0; slot < num_slots; ++slot) free_slots.push_back(slot);
  std::vector<Running> running;
  bool was_told_to_stop = false;
  while (!running.empty() || (!waiting.empty() && !was_told_to_stop)) {
    if (stop_signal() != 0 && !was_told_to_stop) {
      was_told_to_stop = true;
      for (const Running& one : running) ::kill(one.pid, SIGTERM);
    }
    while (!was_told_to_stop && !waiting.empty() && !free_slots.empty()) {
      const Running one{waiting.front(), free_slots.front(), start(plan.arms[waiting.front()], options, free_slots.front()), now_seconds()};
      waiting.pop_front();
      free_slots.pop_front();
      running.push_back(one);
      log::info("[stress] {} begins ({} wait)", plan.arms[one.arm].name, waiting.size());
    }
    for (auto one = running.begin(); one != running.end();) {
      int status = 0;
      if (::waitpid(one->pid, &status, WNOHANG) != one->pid) {
        ++one;
        continue;
      }
      results[one->arm] = result_of(plan.arms[one->arm], options, status);
      const ArmResult& result = results[one->arm];
      log::info("[stress] {} {} after {}{}", plan.arms[one->arm].name, describe(result.state), clock_text(now_seconds() - one->begin_seconds),
                result.failure.empty() ? "" : ": " + result.failure);
      free_slots.push_back(one->slot);
      one = running.erase(one);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  for (const std::size_t i : waiting) results[i].state = ArmState::kInterrupted;
  return results;
}

}  // namespace scrna::stress
