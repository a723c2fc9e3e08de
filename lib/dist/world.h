// Which process of how many this one is, from the variables that launchers set. `scrna-train launch` and
// torchrun say RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT; Open MPI's mpirun
// says OMPI_COMM_WORLD_*; Slurm's srun says SLURM_PROCID and the like. The first of these that is there
// counts. Without any, or when mpirun or srun started a single process, the process is alone and nothing is
// connected.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace scrna::dist {

struct World {
  int64_t rank = 0;             // 0 .. num_ranks - 1
  int64_t num_ranks = 1;        // of all machines
  int64_t local_rank = 0;       // among the ranks of this machine
  int64_t num_local_ranks = 1;  // of this machine
  std::string master_address;   // of the machine of rank 0; empty: alone
  int64_t master_port = 0;
  int64_t attempt = 0;           // restarts before this one (TORCHELASTIC_RESTART_COUNT)
  bool store_is_served = false;  // torchrun's agent serves the rendezvous: rank 0 must not
  int listening_socket = -1;     // of rank 0, already bound to master_port; -1: none
  std::string launcher;          // for messages: "torchrun", "mpirun", "srun"; empty: alone

  /// A launcher started this process, perhaps as the only one.
  [[nodiscard]] bool is_launched() const { return !launcher.empty(); }
};

/// The value of a variable, or null.
using Environment = std::function<const char*(const char*)>;

/// Throws ConfigError for a variable that is missing, no number, or contradicts another, naming it.
World world_from_environment(const Environment& variable);
/// Of this process.
World world_from_environment();

/// First host of a Slurm list: "node[003-007,9],login" gives "node003". Throws ConfigError when it has none.
std::string first_host(const std::string& slurm_list);

}  // namespace scrna::dist
