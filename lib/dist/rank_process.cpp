#include "lib/dist/rank_process.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/core/error.h"

extern char** environ;

namespace scrna::dist {
namespace {

constexpr std::string_view kErrorStart = "scrna-train: error: ";

// The environment of a child, made before the fork: after it nothing may allocate.
std::vector<std::string> environment_with(const std::vector<std::pair<std::string, std::string>>& variables) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    bool is_replaced = false;
    for (const auto& variable : variables) is_replaced = is_replaced || variable.first == name;
    if (!is_replaced) result.emplace_back(text);
  }
  for (const auto& [name, value] : variables) {
    if (!value.empty()) result.push_back(name + "=" + value);
  }
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

void write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // nobody reads: the ranks go on
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace

RankProcess::RankProcess(int64_t rank, const std::vector<std::string>& command,
                         const std::vector<std::pair<std::string, std::string>>& variables,
                         int inherited_descriptor)
    : rank_(rank) {
  int out[2] = {-1, -1}, err[2] = {-1, -1};
  if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0) {
    throw DeviceError("rank {}: cannot make a pipe: {}", rank, std::strerror(errno));
  }
  std::vector<std::string> words = command, settings = environment_with(variables);
  const std::vector<char*> arguments = pointers(words), environment = pointers(settings);
  const pid_t launcher = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) throw DeviceError("rank {}: cannot start a process: {}", rank, std::strerror(errno));
  if (pid_ == 0) {
    ::setpgid(0, 0);  // Ctrl-C reaches the launcher alone, which passes it on once
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != launcher) ::_exit(127);  // it died before the line above
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    const int input = ::open("/dev/null", O_RDONLY);
    if (input >= 0) ::dup2(input, STDIN_FILENO);
    ::dup2(out[1], STDOUT_FILENO);
    ::dup2(err[1], STDERR_FILENO);
    if (inherited_descriptor >= 0) ::fcntl(inherited_descriptor, F_SETFD, 0);
    ::execve(arguments[0], arguments.data(), environment.data());
    constexpr std::string_view kNotStarted = "scrna-train: error: the program of a rank cannot be executed\n";
    write_all(STDERR_FILENO, kNotStarted);
    ::_exit(127);
  }
  ::setpgid(pid_, pid_);  // in both: whichever comes first
  ::close(out[1]);
  ::close(err[1]);
  streams_[0] = {out[0], STDOUT_FILENO, {}};
  streams_[1] = {err[0], STDERR_FILENO, {}};
  for (const Stream& stream : streams_) ::fcntl(stream.descriptor, F_SETFL, O_NONBLOCK);
}

RankProcess::~RankProcess() {
  if (!exit_code_) {
    signal(SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  for (const Stream& stream : streams_) {
    if (stream.descriptor >= 0) ::close(stream.descriptor);
  }
}

bool RankProcess::read_some(Stream& stream) {
  std::array<char, 8192> buffer{};
  const ssize_t count = ::read(stream.descriptor, buffer.data(), buffer.size());
  if (count > 0) {
    stream.partial.append(buffer.data(), static_cast<std::size_t>(count));
    write_lines(stream, false);
    return true;
  }
  if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
    write_lines(stream, true);
    ::close(stream.descriptor);
    stream.descriptor = -1;
  }
  return false;
}

void RankProcess::write_lines(Stream& stream, bool is_end) {
  if (is_end && !stream.partial.empty() && stream.partial.back() != '\n') stream.partial += '\n';
  std::string text;
  std::size_t begin = 0;
  for (std::size_t end; (end = stream.partial.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string line = stream.partial.substr(begin, end - begin);
    text += fmt::format("[{}] {}\n", rank_, line);
    if (line.starts_with(kErrorStart)) error_line_ = line.substr(kErrorStart.size());
    last_lines_.push_back(line);
    if (last_lines_.size() > kKeptLines) last_lines_.pop_front();
  }
  stream.partial.erase(0, begin);
  write_all(stream.target, text);
}

void RankProcess::pass_on() {
  for (Stream& stream : streams_) {
    if (stream.descriptor >= 0) read_some(stream);
  }
}

void RankProcess::pass_on_rest() {
  for (Stream& stream : streams_) {
    while (stream.descriptor >= 0 && read_some(stream)) {
    }
    if (stream.descriptor < 0)
      continue;  // else a child of the rank holds the pipe: no longer ours to wait for
    write_lines(stream, true);
    ::close(stream.descriptor);
    stream.descriptor = -1;
  }
}

void RankProcess::signal(int number) const {
  if (!exit_code_) ::kill(-pid_, number);
}

bool RankProcess::has_ended() {
  if (exit_code_) return true;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) != pid_) return false;
  signal_ = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  exit_code_ = signal_ != 0 ? 128 + signal_ : WEXITSTATUS(status);
  return true;
}

std::string RankProcess::end_text() const {
  return signal_ != 0 ? fmt::format("signal {} ({})", signal_, ::strsignal(signal_))
                      : fmt::format("exit code {}", *exit_code_);
}

}  // namespace scrna::dist
