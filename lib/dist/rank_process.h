// One rank as a child process: started with its variables and a process group of its own, its output passed
// on line by line with its number before it, the last lines kept for the report. Internal to the launcher.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace scrna::dist {

class RankProcess {
 public:
  static constexpr std::size_t kKeptLines = 12;

  /// Forks and executes `command` with `variables` added to the environment (an empty value takes one away).
  /// The child gets SIGTERM when this process dies, and /dev/null as its input. inherited_descriptor: kept
  /// open in the child, or -1. Throws DeviceError when no process can be had.
  RankProcess(int64_t rank, const std::vector<std::string>& command,
              const std::vector<std::pair<std::string, std::string>>& variables, int inherited_descriptor);
  /// Kills what still runs and reaps it.
  ~RankProcess();
  RankProcess(const RankProcess&) = delete;
  RankProcess& operator=(const RankProcess&) = delete;

  [[nodiscard]] int64_t rank() const { return rank_; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  /// Descriptors to wait for; a closed one is -1.
  [[nodiscard]] int output() const { return streams_[0].descriptor; }
  [[nodiscard]] int errors() const { return streams_[1].descriptor; }
  /// Passes on what there is, without waiting.
  void pass_on();
  /// Passes on all that is left, also a last line without newline, and closes the pipes.
  void pass_on_rest();

  /// Sends a signal to the process and its children, unless it has ended.
  void signal(int number) const;
  /// Looks whether it has ended, without waiting. True once it has been reaped.
  bool has_ended();
  /// Exit code, or 128 + signal; after has_ended().
  [[nodiscard]] int exit_code() const { return *exit_code_; }
  /// "exit code 3", "signal 9 (Killed)"; after has_ended().
  [[nodiscard]] std::string end_text() const;
  [[nodiscard]] const std::deque<std::string>& last_lines() const { return last_lines_; }
  /// What the program gave as its error ("scrna-train: error: ..."), or empty.
  [[nodiscard]] const std::string& error_line() const { return error_line_; }

 private:
  struct Stream {
    int descriptor = -1;
    int target = -1;
    std::string partial;  // of a line
  };
  bool read_some(Stream& stream);
  void write_lines(Stream& stream, bool is_end);

  int64_t rank_;
  pid_t pid_ = -1;
  Stream streams_[2];
  std::deque<std::string> last_lines_;
  std::string error_line_;
  std::optional<int> exit_code_;
  int signal_ = 0;  // that ended it
};

}  // namespace scrna::dist
