// Starts the ranks of this machine and stays with them until the last has ended: what torchrun does, without
// Python. No rank outlives it: when one fails the others are asked to end (SIGTERM) and killed after
// stop_seconds; when the launcher itself is killed the kernel sends them SIGTERM. Every child is reaped.
// Signals to the launcher go to all ranks, which agree among themselves where to stop. Several machines: one
// launcher on each, all with the endpoint of machine 0; a rank that fails on one machine ends the others by
// their broken connections.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace scrna::dist {

struct LaunchOptions {
  std::vector<std::string> command;          // program (a path) and arguments of every rank
  std::vector<std::string> restart_command;  // the same after a restart; empty: as before
  int64_t num_local_ranks = 1;
  int64_t num_machines = 1;
  int64_t machine = 0;  // 0 holds rank 0
  std::string address;  // where the ranks meet; empty: on this machine, at a free port (one machine only)
  int64_t port = 0;
  int64_t max_restarts = 0;
  double stop_seconds = 30;
  /// Once a rank has ended well the others should too: they had the same work. After this long they count as
  /// failed.
  double end_seconds = 120;
};

struct LaunchResult {
  int exit_code = 0;    // 0; 143 when stopped after a checkpoint; else that of the rank that failed first
  std::string message;  // why, on one line; empty unless a rank failed
  int64_t num_restarts = 0;
};

/// Blocks. A rank killed by a signal counts as exit code 5. Failures in configuration (2), input (3) and
/// training itself (4) are not answered by a restart: they would come again. Throws DeviceError when no
/// process or port can be had. Uses SIGCHLD and the stop signals of the process while it runs; call it from a
/// process without other threads.
LaunchResult launch(const LaunchOptions& options);

}  // namespace scrna::dist
