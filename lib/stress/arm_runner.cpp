#include "lib/stress/arm_runner.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <exception>
#include <iterator>
#include <optional>
#include <string_view>
#include <thread>

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

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

fs::path config_file(const RunnerOptions& options, const Arm& arm) {
  return options.out / (arm.name + ".yaml");
}
fs::path log_file(const RunnerOptions& options, const Arm& arm) { return options.out / (arm.name + ".log"); }

pid_t start(const Arm& arm, const RunnerOptions& options, std::size_t slot) {
  std::vector<std::string> words = {options.program.string(),           "train",    "--config",
                                    config_file(options, arm).string(), "--resume", "auto"};
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (options.gpus.empty() || std::strncmp(*variable, "CUDA_VISIBLE_DEVICES=", 21) != 0)
      variables.emplace_back(*variable);
  }
  if (!options.gpus.empty()) {
    variables.push_back(fmt::format("CUDA_VISIBLE_DEVICES={}", options.gpus[slot % options.gpus.size()]));
  }
  std::vector<char*> envp;
  for (std::string& variable : variables) envp.push_back(variable.data());
  envp.push_back(nullptr);

  const std::string log = log_file(options, arm).string();
  const pid_t table = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) throw DeviceError("arm {}: no process can be started: {}", arm.name, std::strerror(errno));
  if (pid == 0) {
    // A group of its own: Ctrl-C reaches the table alone, which passes it on once; a second signal would end an arm
    // before it has saved. When the table is killed, the kernel tells the arm to save and end.
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != table) ::_exit(127);  // it died before the line above
    const int input = ::open("/dev/null", O_RDONLY);
    const int output = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (input >= 0) ::dup2(input, STDIN_FILENO);
    if (output >= 0) ::dup2(output, STDOUT_FILENO), ::dup2(output, STDERR_FILENO);
    ::execve(argv[0], argv.data(), envp.data());
    constexpr std::string_view kNotStarted = "scrna-train: error: the program of an arm cannot be executed\n";
    static_cast<void>(!::write(STDERR_FILENO, kNotStarted.data(), kNotStarted.size()));
    ::_exit(127);
  }
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
  return text.substr(begin == std::string::npos ? 0 : begin + 1,
                     end - (begin == std::string::npos ? 0 : begin));
}

ArmResult result_of(const Arm& arm, const RunnerOptions& options, int status) {
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (code == static_cast<int>(ExitCode::kSavedAfterSignal)) return {ArmState::kInterrupted, {}};
  const ArmState state = state_of(options, arm);
  if ((code == 0 && state == ArmState::kFinished) ||
      (code == static_cast<int>(ExitCode::kNumeric) && state == ArmState::kDiverged)) {
    return {state, {}};
  }
  return {ArmState::kFailed,
          fmt::format("{}: {}",
                      WIFSIGNALED(status) ? fmt::format("killed by signal {}", WTERMSIG(status))
                                          : fmt::format("exit code {}", code),
                      last_words(log_file(options, arm)))};
}

std::string_view describe(ArmState state) {
  switch (state) {
    case ArmState::kFinished:
      return "finished";
    case ArmState::kDiverged:
      return "diverged";
    case ArmState::kFailed:
      return "failed";
    case ArmState::kInterrupted:
      return "interrupted";
    case ArmState::kWaiting:
      break;
  }
  return "waiting";
}

// What may differ between two calls of the same table: where things are, and how arms are computed and kept.
constexpr std::array<std::string_view, 9> kFree = {
    "run.",        "dist.",           "checkpoint.",      "data.files",
    "data.cache",  "data.vocabulary", "data.num_workers", "train.num_threads",
    "train.device"};

void require_same_settings(const StressPlan& plan, const RunnerOptions& options) {
  for (const Arm& arm : plan.arms) {
    const fs::path folder = folder_of(options, arm), file = folder / "config.yaml";
    if (!fs::exists(file)) continue;
    std::string changes;
    for (const config::Difference& difference : config::differences(config::load<train::TrainConfig>(file, std::vector<std::string>()), arm.config)) {
      if (config::is_among(kFree, difference.path)) continue;
      changes += fmt::format("{}{}: {} -> {}", changes.empty() ? "" : "; ", difference.path, difference.before, difference.after);
    }
    if (!changes.empty()) {
      throw ConfigError(
          "{}: that arm was begun with other settings ({}), and would stand for these. Choose another --out, or remove the folder",
          folder.string(), changes);
    }
  }
}

}  // namespace

void complete_settings(report::RunData& run) {
  using Setting = std::pair<std::string, std::string>;
  std::vector<Setting> complete;
  std::vector<Setting> unknown = std::move(run.config);
  for (const config::Entry& entry : config::entries(train::TrainConfig{})) {
    if (entry.is_section) continue;
    const auto given = std::ranges::find(unknown, entry.path, &Setting::first);
    complete.emplace_back(entry.path, given == unknown.end() ? entry.value : given->second);
    if (given != unknown.end()) unknown.erase(given);
  }
  std::ranges::move(unknown, std::back_inserter(complete));
  run.config = std::move(complete);
}

fs::path folder_of(const RunnerOptions& options, const Arm& arm) { return options.out / arm.name; }

ArmState state_of(const RunnerOptions& options, const Arm& arm) {
  const fs::path folder = folder_of(options, arm);
  if (!fs::exists(folder / "config.yaml")) return ArmState::kWaiting;
  const report::RunData run = report::read_run(folder);
  return run.end() ? ArmState::kDiverged : run.is_finished() ? ArmState::kFinished : ArmState::kWaiting;
}

std::vector<ArmData> read_arms(const StressPlan& plan, const RunnerOptions& options) {
  std::vector<std::optional<ArmData>> found(plan.arms.size());
  std::vector<std::exception_ptr> problems(plan.arms.size());
  std::atomic<std::size_t> next = 0;
  const auto read = [&] {
    for (std::size_t i = next++; i < found.size(); i = next++) {
      const Arm& arm = plan.arms[i];
      const fs::path folder = folder_of(options, arm);
      try {
        if (!fs::exists(folder / "metrics.jsonl")) continue;
        report::RunData run = report::read_run(folder, arm.name);
        complete_settings(run);
        found[i] = arm_data(arm.name, std::move(run));
      } catch (...) {
        problems[i] = std::current_exception();
      }
    }
  };
  {
    const std::size_t num_threads = std::clamp<std::size_t>(std::thread::hardware_concurrency(), 1, 16);
    std::vector<std::jthread> threads;
    for (std::size_t i = 1; i < std::min(num_threads, found.size()); ++i) threads.emplace_back(read);
    read();
  }
  for (const std::exception_ptr& problem : problems)
    if (problem) std::rethrow_exception(problem);
  std::vector<ArmData> arms;
  for (std::optional<ArmData>& arm : found)
    if (arm) arms.push_back(std::move(*arm));
  return arms;
}

std::vector<ArmResult> run_arms(const StressPlan& plan, const RunnerOptions& options) {
  require_same_settings(plan, options);
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
  if (waiting.size() < plan.arms.size())
    log::info("[stress] {} of {} arms have ended before", plan.arms.size() - waiting.size(),
              plan.arms.size());

  const std::size_t num_slots =
      static_cast<std::size_t>(options.jobs_per_gpu) * std::max<std::size_t>(1, options.gpus.size());
  std::deque<std::size_t> free_slots;
  for (std::size_t slot = 0; slot < num_slots; ++slot) free_slots.push_back(slot);
  std::vector<Running> running;
  bool was_told_to_stop = false, is_time_up = false;
  const double begin_seconds = now_seconds();
  while (!running.empty() || (!waiting.empty() && !was_told_to_stop && !is_time_up)) {
    if (!is_time_up && options.seconds > 0 && now_seconds() - begin_seconds >= options.seconds) {
      is_time_up = true;
      if (!waiting.empty())
        log::info("[stress] {} are over: {} arms are not begun, {} run to their end", clock_text(options.seconds),
                  waiting.size(), running.size());
    }
    if (stop_signal() != 0 && !was_told_to_stop) {
      was_told_to_stop = true;
      for (const Running& one : running) ::kill(one.pid, SIGTERM);
    }
    while (!was_told_to_stop && !is_time_up && !waiting.empty() && !free_slots.empty()) {
      const Running one{waiting.front(), free_slots.front(),
                        start(plan.arms[waiting.front()], options, free_slots.front()), now_seconds()};
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
      log::info("[stress] {} {} after {}{}", plan.arms[one->arm].name, describe(result.state),
                clock_text(now_seconds() - one->begin_seconds),
                result.failure.empty() ? "" : ": " + result.failure);
      free_slots.push_back(one->slot);
      one = running.erase(one);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (was_told_to_stop)
    for (const std::size_t i : waiting) results[i].state = ArmState::kInterrupted;
  return results;
}

}  // namespace scrna::stress
