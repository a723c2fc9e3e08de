// Ranks as threads of one process, on loopback, each with its own communicator. c10d's flight recorder is the one thing
// they would share, and LibTorch 2.11 puts each new group into a std::map of it without a lock: it is switched off
// (ranks are processes outside the tests). For tests of what ranks compute together; tests of processes that die start real ones
// (tests/apps/launch_test.cpp).
#pragma once

#include <chrono>
#include <cstdlib>
#include <exception>
#include <functional>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/dist/communicator.h"

namespace scrna::test {

/// A listening socket on loopback, and its port.
inline std::pair<int, int64_t> listen_on_loopback() {
  const int descriptor = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (descriptor < 0 || ::bind(descriptor, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      ::listen(descriptor, 64) != 0 ||
      ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    std::abort();
  }
  return {descriptor, ntohs(address.sin_port)};
}

/// Runs `part` on num_ranks connected ranks at once. What each threw, by rank; null: nothing.
inline std::vector<std::exception_ptr> run_ranks(
    int64_t num_ranks, const std::function<void(dist::Communicator&)>& part,
    std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
  ::setenv("TORCH_FR_BUFFER_SIZE", "0", /*overwrite=*/1);  // read once, by the first group of the process
  const auto [listening, port] = listen_on_loopback();
  std::vector<std::exception_ptr> problems(static_cast<std::size_t>(num_ranks));
  {
    std::vector<std::jthread> threads;
    for (int64_t rank = 0; rank < num_ranks; ++rank) {
      threads.emplace_back([&, rank, listening = listening, port = port] {
        dist::World world{.rank = rank,
                          .num_ranks = num_ranks,
                          .local_rank = rank,
                          .num_local_ranks = num_ranks,
                          .master_address = "127.0.0.1",
                          .master_port = port,
                          .launcher = "a test"};
        if (rank == 0) world.listening_socket = listening;
        try {
          dist::Communicator communicator(world, at::kCPU, timeout);
          part(communicator);
        } catch (...) {
          problems[static_cast<std::size_t>(rank)] = std::current_exception();
        }
      });
    }
  }
  return problems;
}

/// The same where nothing may be thrown.
inline void run_good_ranks(int64_t num_ranks, const std::function<void(dist::Communicator&)>& part) {
  for (const std::exception_ptr& problem : run_ranks(num_ranks, part)) {
    if (problem) std::rethrow_exception(problem);
  }
}

}  // namespace scrna::test
