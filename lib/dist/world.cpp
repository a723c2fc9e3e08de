#include "lib/dist/world.h"

#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "lib/core/error.h"

namespace scrna::dist {
namespace {

constexpr int64_t kDefaultPort = 29500;
// Two jobs of one machine must not meet at the same port, and all ranks of a job must choose the same.
constexpr int64_t kFirstJobPort = 20000, kNumJobPorts = 12000;

class Reader {
 public:
  explicit Reader(const Environment& variable) : variable_(variable) {}

  /// Empty counts as absent.
  [[nodiscard]] std::optional<std::string> text(const char* name) const {
    const char* const value = variable_(name);
    if (value == nullptr || *value == '\0') return std::nullopt;
    return value;
  }
  [[nodiscard]] bool has(const char* name) const { return text(name).has_value(); }
  [[nodiscard]] int64_t number(const char* name, std::optional<int64_t> otherwise = std::nullopt) const {
    const std::optional<std::string> value = text(name);
    if (!value) {
      if (otherwise) return *otherwise;
      throw ConfigError(
          "{} is not set, but other variables of a launcher are; start all processes with one launcher, or "
          "unset RANK and WORLD_SIZE to train in one process",
          name);
    }
    int64_t number = 0;
    const char* const end = value->data() + value->size();
    const auto [rest, problem] = std::from_chars(value->data(), end, number);
    if (problem != std::errc() || rest != end || number < 0) {
      throw ConfigError("{}={}: expected a whole number from 0", name, *value);
    }
    return number;
  }
  [[nodiscard]] std::string required(const char* name, std::string_view what_to_do) const {
    const std::optional<std::string> value = text(name);
    if (!value) throw ConfigError("{} is not set; {}", name, what_to_do);
    return *value;
  }

 private:
  const Environment& variable_;
};

void check(const World& world) {
  const auto refuse = [](std::string_view rank_name, int64_t rank, std::string_view size_name, int64_t size) {
    throw ConfigError(
        "the launcher's variables contradict each other: {} {} of {} {}; expected a rank below the number "
        "of ranks",
        rank_name, rank, size_name, size);
  };
  if (world.rank >= world.num_ranks) refuse("rank", world.rank, "ranks", world.num_ranks);
  if (world.local_rank >= world.num_local_ranks) {
    refuse("local rank", world.local_rank, "local ranks", world.num_local_ranks);
  }
  if (world.num_local_ranks > world.num_ranks)
    refuse("local ranks", world.num_local_ranks, "ranks", world.num_ranks);
  if (world.master_port < 1 || world.master_port > 65535) {
    throw ConfigError("MASTER_PORT={}: expected a port from 1 to 65535", world.master_port);
  }
}

World from_torchrun(const Reader& read) {
  World world;
  world.launcher = read.text("SCRNA_LAUNCHER").value_or("RANK and WORLD_SIZE");
  if (read.has("TORCHELASTIC_RUN_ID")) world.launcher = "torchrun";
  world.rank = read.number("RANK");
  world.num_ranks = read.number("WORLD_SIZE");
  const bool is_single = world.num_ranks == 1;
  world.local_rank = read.number("LOCAL_RANK", is_single ? std::optional<int64_t>(0) : std::nullopt);
  world.num_local_ranks = read.number("LOCAL_WORLD_SIZE", world.num_ranks);
  if (is_single && !read.has("MASTER_ADDR")) return {};  // WORLD_SIZE=1 alone: nobody to meet
  world.master_address =
      read.required("MASTER_ADDR", "expected the name or address of the machine of rank 0");
  world.master_port = read.number("MASTER_PORT", kDefaultPort);
  world.attempt = read.number("TORCHELASTIC_RESTART_COUNT", 0);
  world.store_is_served = read.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
  world.listening_socket = world.rank == 0 ? static_cast<int>(read.number("SCRNA_LISTENING_SOCKET", 0)) : 0;
  if (world.listening_socket == 0) world.listening_socket = -1;
  return world;
}

// What a process manager of MPI calls its variables.
struct MpiNames {
  const char* launcher;
  const char* rank;
  const char* num_ranks;
  const char* local_rank;
  const char* num_local_ranks;
  const char* how;  // to give the address of the first machine when there are several
};

constexpr MpiNames kOpenMpi{.launcher = "mpirun",
                            .rank = "OMPI_COMM_WORLD_RANK",
                            .num_ranks = "OMPI_COMM_WORLD_SIZE",
                            .local_rank = "OMPI_COMM_WORLD_LOCAL_RANK",
                            .num_local_ranks = "OMPI_COMM_WORLD_LOCAL_SIZE",
                            .how = "with mpirun over several machines give the address of the machine "
                                   "of rank 0: mpirun -x MASTER_ADDR=..."};
// MPICH and Intel MPI.
constexpr MpiNames kHydra{.launcher = "mpiexec (hydra)",
                          .rank = "PMI_RANK",
                          .num_ranks = "PMI_SIZE",
                          .local_rank = "MPI_LOCALRANKID",
                          .num_local_ranks = "MPI_LOCALNRANKS",
                          .how = "with mpiexec over several machines give the address of the machine "
                                 "of rank 0: mpiexec -genv MASTER_ADDR ..."};

World from_mpi(const Reader& read, const MpiNames& names) {
  World world;
  world.launcher = names.launcher;
  world.rank = read.number(names.rank);
  world.num_ranks = read.number(names.num_ranks);
  world.local_rank = read.number(names.local_rank);
  world.num_local_ranks = read.number(names.num_local_ranks);
  const bool is_one_machine = world.num_local_ranks == world.num_ranks;
  world.master_address = is_one_machine ? read.text("MASTER_ADDR").value_or("127.0.0.1")
                                        : read.required("MASTER_ADDR", names.how);
  world.master_port = read.number("MASTER_PORT", kDefaultPort);
  return world;
}

World from_slurm(const Reader& read) {
  World world;
  world.launcher = "srun";
  world.rank = read.number("SLURM_PROCID");
  world.num_ranks = read.number("SLURM_STEP_NUM_TASKS");
  world.local_rank = read.number("SLURM_LOCALID");
  // "4(x2),3": tasks of the nodes in order; this node's own count is not among the variables, so it is a
  // lower bound.
  world.num_local_ranks = world.local_rank + 1;
  if (const auto tasks = read.text("SLURM_STEP_TASKS_PER_NODE")) {
    world.num_local_ranks = std::max(world.num_local_ranks, static_cast<int64_t>(std::atoll(tasks->c_str())));
    world.num_local_ranks = std::min(world.num_local_ranks, world.num_ranks);
  }
  const auto nodes = read.text("SLURM_STEP_NODELIST");
  if (const auto address = read.text("MASTER_ADDR")) {
    world.master_address = *address;
  } else if (nodes) {
    world.master_address = first_host(*nodes);
  } else {
    world.master_address =
        read.required("MASTER_ADDR", "SLURM_STEP_NODELIST is not set either, so rank 0 cannot be found");
  }
  world.master_port =
      read.number("MASTER_PORT", kFirstJobPort + read.number("SLURM_JOB_ID", 0) % kNumJobPorts);
  return world;
}

}  // namespace

std::string first_host(const std::string& slurm_list) {
  const std::size_t bracket = slurm_list.find('['), comma = slurm_list.find(',');
  if (bracket == std::string::npos || comma < bracket) {
    const std::string host = slurm_list.substr(0, comma);
    if (host.empty())
      throw ConfigError("SLURM_STEP_NODELIST={}: expected names of nodes; set MASTER_ADDR", slurm_list);
    return host;
  }
  const std::size_t end = slurm_list.find_first_of(",-]", bracket);
  const std::size_t close = slurm_list.find(']', bracket);
  if (close == std::string::npos || end == bracket + 1) {
    throw ConfigError("SLURM_STEP_NODELIST={}: expected names of nodes; set MASTER_ADDR", slurm_list);
  }
  const std::size_t next_comma = slurm_list.find(',', close);
  const std::string suffix =
      slurm_list.substr(close + 1, next_comma == std::string::npos ? next_comma : next_comma - close - 1);
  return slurm_list.substr(0, bracket) + slurm_list.substr(bracket + 1, end - bracket - 1) + suffix;
}

World world_from_environment(const Environment& variable) {
  const Reader read(variable);
  World world;
  if (read.has("WORLD_SIZE") || read.has("RANK")) {
    world = from_torchrun(read);
  } else if (read.has("OMPI_COMM_WORLD_SIZE")) {
    world = from_mpi(read, kOpenMpi);
    if (world.num_ranks == 1) return {};
  } else if (read.has("SLURM_PROCID") &&
             read.has("SLURM_STEP_NUM_TASKS")) {  // the second is srun's, not sbatch's
    world = from_slurm(read);
    if (world.num_ranks == 1) return {};
  } else if (read.has("PMI_SIZE") && read.number("PMI_SIZE") > 1) {
    world = from_mpi(read, kHydra);
  }
  if (world.is_launched()) check(world);
  return world;
}

World world_from_environment() {
  return world_from_environment([](const char* name) { return std::getenv(name); });
}

}  // namespace scrna::dist
