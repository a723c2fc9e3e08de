// Runs a program as a user would and gives back its exit code and what it wrote. For end-to-end tests.
#pragma once

#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

namespace scrna::test {

struct ProcessResult {
  int exit_code = -1;  // 128 + signal, as a shell says it
  std::string out;     // on a terminal: all it showed
  std::string err;
};

struct ProcessOptions {
  std::function<void()> before_exec;  // in the child: limits, environment, other standard files
  bool close_stdout = false;          // its reader has gone away
  bool on_terminal = false;           // 24 x 80, for all standard files
};

inline ProcessResult run_process(const std::vector<std::string>& words, const ProcessOptions& options = {}) {
  int out[2] = {-1, -1}, err[2] = {-1, -1}, terminal = -1;
  if (::pipe(out) != 0 || ::pipe(err) != 0) std::abort();
  const winsize size{.ws_row = 24, .ws_col = 80, .ws_xpixel = 0, .ws_ypixel = 0};
  const pid_t child = options.on_terminal ? ::forkpty(&terminal, nullptr, nullptr, &size) : ::fork();
  if (child < 0) std::abort();
  if (child == 0) {
    if (!options.on_terminal) {
      ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
      ::dup2(out[1], STDOUT_FILENO);
      ::dup2(err[1], STDERR_FILENO);
    }
    for (const int descriptor : {out[0], out[1], err[0], err[1]}) ::close(descriptor);
    if (options.before_exec) options.before_exec();
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  ::close(out[1]);
  ::close(err[1]);
  if (options.close_stdout) {
    ::close(out[0]);
    out[0] = -1;
  }
  ProcessResult result;
  std::vector<std::pair<pollfd, std::string*>> sources;
  for (const auto& [descriptor, text] :
       {std::pair{out[0], &result.out}, std::pair{err[0], &result.err}, std::pair{terminal, &result.out}}) {
    if (descriptor >= 0) sources.push_back({{.fd = descriptor, .events = POLLIN, .revents = 0}, text});
  }
  while (!sources.empty()) {
    std::vector<pollfd> waiting;
    for (const auto& source : sources) waiting.push_back(source.first);
    ::poll(waiting.data(), waiting.size(), -1);
    for (std::size_t i = waiting.size(); i-- > 0;) {
      if (waiting[i].revents == 0) continue;
      char buffer[4096];
      const ssize_t count = ::read(waiting[i].fd, buffer, sizeof buffer);  // -1 at the end of a terminal
      if (count > 0) {
        sources[i].second->append(buffer, static_cast<std::size_t>(count));
      } else {
        ::close(waiting[i].fd);
        sources.erase(sources.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace scrna::test
