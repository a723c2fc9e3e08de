#include "lib/dist/launcher.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/dist/rank_process.h"

namespace scrna::dist {
namespace {

constexpr int kSaved = static_cast<int>(ExitCode::kSavedAfterSignal);
constexpr int kCommunication = static_cast<int>(ExitCode::kDevice);
// A rank that fails takes the others with it within milliseconds. Who is seen first may be such a follower:
// then the others are given this long to fail by themselves before they are asked to end, and one that is no
// follower is the cause.
constexpr double kCauseSeconds = 2;
constexpr int kPollMilliseconds = 200;

// Blocks the signals that the launcher handles and reads them from a descriptor, as long as it lives.
class Signals {
 public:
  Signals() {
    ::sigemptyset(&set_);
    for (const int number : {SIGCHLD, SIGTERM, SIGINT, SIGHUP}) ::sigaddset(&set_, number);
    ::sigprocmask(SIG_BLOCK, &set_, &before_);
    descriptor_ = ::signalfd(-1, &set_, SFD_NONBLOCK | SFD_CLOEXEC);
    if (descriptor_ < 0) throw DeviceError("cannot wait for signals: {}", std::strerror(errno));
  }
  ~Signals() {
    ::close(descriptor_);
    ::sigprocmask(SIG_SETMASK, &before_, nullptr);
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  [[nodiscard]] int descriptor() const { return descriptor_; }
  /// The next signal that came, or 0.
  [[nodiscard]] int next() const {
    signalfd_siginfo info{};
    return ::read(descriptor_, &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo) : 0;
  }

 private:
  sigset_t set_{}, before_{};
  int descriptor_ = -1;
};

// A socket that listens at a free port, handed to rank 0: nobody can take the port in between.
class ListeningSocket {
 public:
  ListeningSocket() : descriptor_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    if (descriptor_ < 0 || ::bind(descriptor_, generic, length) != 0 || ::listen(descriptor_, 1024) != 0 ||
        ::getsockname(descriptor_, generic, &length) != 0) {
      const int reason = errno;
      if (descriptor_ >= 0) ::close(descriptor_);
      throw DeviceError("cannot listen at a port of 127.0.0.1: {}", std::strerror(reason));
    }
    port_ = ntohs(address.sin_port);
  }
  ~ListeningSocket() { ::close(descriptor_); }
  ListeningSocket(const ListeningSocket&) = delete;
  ListeningSocket& operator=(const ListeningSocket&) = delete;

  [[nodiscard]] int descriptor() const { return descriptor_; }
  [[nodiscard]] int64_t port() const { return port_; }

 private:
  int descriptor_;
  int64_t port_ = 0;
};

/// One start of all ranks, to the end of the last.
class Attempt {
 public:
  Attempt(const LaunchOptions& options, const Signals& signals, int64_t number)
      : options_(options), signals_(signals), start_seconds_(now_seconds()) {
    std::optional<ListeningSocket> socket;
    if (options.address.empty()) socket.emplace();
    const bool is_first = number == 0 || options.restart_command.empty();
    const std::vector<std::string>& command = is_first ? options.command : options.restart_command;
    const auto text = [](int64_t value) { return std::to_string(value); };
    const int64_t num_cores = std::max<int64_t>(std::thread::hardware_concurrency(), 1);
    for (int64_t local = 0; local < options.num_local_ranks; ++local) {
      const int64_t rank = options.machine * options.num_local_ranks + local;
      const bool listens = rank == 0 && socket;
      std::vector<std::pair<std::string, std::string>> variables = {
          {"RANK", text(rank)},
          {"LOCAL_RANK", text(local)},
          {"WORLD_SIZE", text(options.num_machines * options.num_local_ranks)},
          {"LOCAL_WORLD_SIZE", text(options.num_local_ranks)},
          {"MASTER_ADDR", socket ? "127.0.0.1" : options.address},
          {"MASTER_PORT", text(socket ? socket->port() : options.port)},
          {"TORCHELASTIC_RESTART_COUNT", text(number)},
          {"TORCHELASTIC_RUN_ID", ""},
          {"TORCHELASTIC_USE_AGENT_STORE", ""},
          {"SCRNA_LAUNCHER", "scrna-train launch"},
          {"SCRNA_LISTENING_SOCKET", listens ? text(socket->descriptor()) : ""}};
      // Each rank as many threads as it has cores for itself, unless the user says otherwise.
      if (options.num_local_ranks > 1 && std::getenv("OMP_NUM_THREADS") == nullptr) {
        variables.emplace_back("OMP_NUM_THREADS",
                               text(std::max<int64_t>(num_cores / options.num_local_ranks, 1)));
      }
      ranks_.push_back(
          std::make_unique<RankProcess>(rank, command, variables, listens ? socket->descriptor() : -1));
    }
  }

  /// Waits for all ranks.
  LaunchResult operator()() {
    while (num_running() > 0) {
      wait();
      for (int number = signals_.next(); number != 0; number = signals_.next()) {
        if (number != SIGCHLD) pass_on(number);
      }
      for (const auto& rank : ranks_) rank->pass_on();
      reap();
      if (ask_seconds_ && now_seconds() >= *ask_seconds_) {
        for (const auto& rank : ranks_) rank->signal(SIGTERM);
        was_asked_after_failure_ = true;
        ask_seconds_.reset();
      }
      if (deadline_seconds_ && now_seconds() > *deadline_seconds_) {
        for (const auto& rank : ranks_) {
          if (!rank->has_ended() && !cause_) blame(*rank, "it did not end with the others");
          rank->signal(SIGKILL);
        }
        deadline_seconds_.reset();
      }
    }
    for (const auto& rank : ranks_) rank->pass_on_rest();
    return result();
  }

  [[nodiscard]] bool was_asked_to_stop() const { return was_asked_to_stop_; }

 private:
  [[nodiscard]] std::size_t num_running() const { return ranks_.size() - num_ended_; }

  void wait() const {
    std::vector<pollfd> sources{{.fd = signals_.descriptor(), .events = POLLIN, .revents = 0}};
    for (const auto& rank : ranks_) {
      for (const int descriptor : {rank->output(), rank->errors()}) {
        if (descriptor >= 0) sources.push_back({.fd = descriptor, .events = POLLIN, .revents = 0});
      }
    }
    ::poll(sources.data(), sources.size(), kPollMilliseconds);
  }

  // A terminal that closes is no reason to lose work: the ranks save as after SIGTERM.
  void pass_on(int number) {
    was_asked_to_stop_ = true;
    log::info("[launch] signal {}: passed on to the ranks", number);
    for (const auto& rank : ranks_) rank->signal(number == SIGHUP ? SIGTERM : number);
  }

  void reap() {
    std::size_t num_ended = 0;
    for (const auto& rank : ranks_) {
      const bool had_ended = is_known_to_have_ended(*rank);
      if (!rank->has_ended()) continue;
      ++num_ended;
      if (had_ended) continue;
      ended_.push_back(rank->rank());
      rank->pass_on_rest();
      const int code = rank->exit_code();
      if (code == 0 || code == kSaved) {
        if (!deadline_seconds_ && !cause_) deadline_seconds_ = now_seconds() + options_.end_seconds;
        was_saved_ = was_saved_ || code == kSaved;
      } else {
        failed(*rank);
      }
    }
    num_ended_ = num_ended;
  }

  [[nodiscard]] bool is_known_to_have_ended(const RankProcess& rank) const {
    return std::ranges::find(ended_, rank.rank()) != ended_.end();
  }

  void failed(RankProcess& rank) {
    const double now = now_seconds();
    if (!cause_) {
      cause_seconds_ = now;
      blame(rank, "");
      ask_seconds_ = is_follower(rank) ? now + kCauseSeconds : now;
      deadline_seconds_ = *ask_seconds_ + options_.stop_seconds;
    } else if (is_follower(*cause_) && !is_follower(rank) && now - cause_seconds_ < 2 * kCauseSeconds &&
               !(was_asked_after_failure_ && rank.exit_code() == 128 + SIGTERM)) {
      blame(rank, "");
      if (ask_seconds_) ask_seconds_ = now;
    }
  }

  void blame(RankProcess& rank, std::string why) {
    cause_ = &rank;
    why_ = std::move(why);
    seconds_ = now_seconds() - start_seconds_;
  }

  // It failed because another did: lost the connection, or repeats what that one said
  // (Communicator::together).
  [[nodiscard]] static bool is_follower(const RankProcess& rank) {
    const std::string& line = rank.error_line();
    const std::size_t end = line.find_first_not_of("0123456789", 5);
    const bool repeats = line.starts_with("rank ") && end != std::string::npos && end > 5 && line[end] == ':';
    return rank.exit_code() == kCommunication || repeats;
  }

  [[nodiscard]] LaunchResult result() const {
    LaunchResult result;
    if (!cause_) {
      result.exit_code = was_saved_ ? kSaved : 0;
      return result;
    }
    const int code = cause_->exit_code();
    result.exit_code = code >= 128 && !was_asked_to_stop_ ? kCommunication : code;
    log::error("[launch] last lines of rank {}:", cause_->rank());
    for (const std::string& line : cause_->last_lines()) log::error("[launch]   {}", line);
    const std::string said = why_.empty() ? cause_->error_line() : why_;
    result.message = fmt::format(
        "rank {} failed first, {:.1f} s after the start: {}{}{}; all ranks of this machine were ended",
        cause_->rank(), seconds_, cause_->end_text(), said.empty() ? "" : ": ", said);
    return result;
  }

  const LaunchOptions& options_;
  const Signals& signals_;
  double start_seconds_;
  std::vector<std::unique_ptr<RankProcess>> ranks_;
  std::vector<int64_t> ended_;  // ranks, in the order in which it was noticed
  std::size_t num_ended_ = 0;
  RankProcess* cause_ = nullptr;  // null: no rank failed
  std::string why_;
  double cause_seconds_ = 0;
  std::optional<double> ask_seconds_;  // when the others are asked to end
  bool was_asked_after_failure_ = false;
  double seconds_ = 0;  // from the start to the failure
  std::optional<double> deadline_seconds_;
  bool was_saved_ = false;
  bool was_asked_to_stop_ = false;
};

bool would_come_again(int exit_code) {
  return exit_code == static_cast<int>(ExitCode::kUsage) || exit_code == static_cast<int>(ExitCode::kData) ||
         exit_code == static_cast<int>(ExitCode::kNumeric);
}

}  // namespace

LaunchResult launch(const LaunchOptions& options) {
  SCRNA_CHECK(
      !options.command.empty() && options.num_local_ranks >= 1 && options.machine < options.num_machines,
      "{} ranks on machine {} of {}", options.num_local_ranks, options.machine, options.num_machines);
  SCRNA_CHECK(options.num_machines == 1 || !options.address.empty(),
              "several machines need an address to meet at");
  const Signals signals;
  for (int64_t number = 0;; ++number) {
    Attempt attempt(options, signals, number);
    LaunchResult result = attempt();
    result.num_restarts = number;
    if (result.message.empty() || attempt.was_asked_to_stop() || number == options.max_restarts ||
        would_come_again(result.exit_code)) {
      return result;
    }
    log::warning("[launch] {}; restart {} of {}", result.message, number + 1, options.max_restarts);
  }
}

}  // namespace scrna::dist
