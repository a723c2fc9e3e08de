#include "lib/dist/world.h"

#include <map>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "tests/support/expect_error.h"

namespace scrna::dist {
namespace {

World world_of(const std::map<std::string, std::string>& variables) {
  return world_from_environment([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

const std::map<std::string, std::string> kTorchrun{{"RANK", "5"},
                                                   {"WORLD_SIZE", "8"},
                                                   {"LOCAL_RANK", "1"},
                                                   {"LOCAL_WORLD_SIZE", "4"},
                                                   {"MASTER_ADDR", "gpu-01"},
                                                   {"MASTER_PORT", "1234"},
                                                   {"TORCHELASTIC_RUN_ID", "none"},
                                                   {"TORCHELASTIC_RESTART_COUNT", "2"},
                                                   {"TORCHELASTIC_USE_AGENT_STORE", "True"}};

TEST(World, WithoutALauncherAProcessIsAlone) {
  EXPECT_FALSE(world_of({}).is_launched());
  EXPECT_FALSE(world_of({{"WORLD_SIZE", "1"}, {"RANK", "0"}}).is_launched());
  EXPECT_FALSE(world_of({{"WORLD_SIZE", ""}}).is_launched());
  // A batch script of Slurm has SLURM_PROCID and SLURM_NTASKS, but nobody started several processes.
  EXPECT_FALSE(world_of({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}).is_launched());
  EXPECT_EQ(world_of({}).num_ranks, 1);
}

TEST(World, VariablesOfTorchrunAreUnderstood) {
  const World world = world_of(kTorchrun);
  EXPECT_EQ(world.rank, 5);
  EXPECT_EQ(world.num_ranks, 8);
  EXPECT_EQ(world.local_rank, 1);
  EXPECT_EQ(world.num_local_ranks, 4);
  EXPECT_EQ(world.master_address, "gpu-01");
  EXPECT_EQ(world.master_port, 1234);
  EXPECT_EQ(world.attempt, 2);
  EXPECT_TRUE(world.store_is_served);
  EXPECT_EQ(world.launcher, "torchrun");
}

TEST(World, VariablesOfMpirunAreUnderstood) {
  const World world = world_of({{"OMPI_COMM_WORLD_RANK", "1"},
                                {"OMPI_COMM_WORLD_SIZE", "2"},
                                {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                                {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  EXPECT_EQ(world.rank, 1);
  EXPECT_EQ(world.local_rank, 1);
  EXPECT_EQ(world.master_address, "127.0.0.1");
  EXPECT_EQ(world.launcher, "mpirun");
  // Over several machines nobody says where rank 0 is.
  const std::string message = test::message_of<ConfigError>([] {
    world_of({{"OMPI_COMM_WORLD_RANK", "1"},
              {"OMPI_COMM_WORLD_SIZE", "2"},
              {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
              {"OMPI_COMM_WORLD_LOCAL_SIZE", "1"}});
  });
  EXPECT_CONTAINS(message, "MASTER_ADDR");
  EXPECT_CONTAINS(message, "mpirun -x");
}

TEST(World, VariablesOfHydraAreUnderstood) {
  const World world = world_of(
      {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}});
  EXPECT_EQ(world.rank, 1);
  EXPECT_EQ(world.num_ranks, 2);
  EXPECT_EQ(world.local_rank, 1);
  EXPECT_EQ(world.num_local_ranks, 2);
  EXPECT_EQ(world.master_address, "127.0.0.1");
  EXPECT_FALSE(world_of({{"PMI_RANK", "0"}, {"PMI_SIZE", "1"}}).is_launched());
  const std::string message = test::message_of<ConfigError>([] {
    world_of({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "0"}, {"MPI_LOCALNRANKS", "1"}});
  });
  EXPECT_CONTAINS(message, "mpiexec -genv MASTER_ADDR");
}

TEST(World, VariablesOfSrunAreUnderstood) {
  const World world = world_of({{"SLURM_PROCID", "9"},
                                {"SLURM_STEP_NUM_TASKS", "16"},
                                {"SLURM_LOCALID", "1"},
                                {"SLURM_STEP_TASKS_PER_NODE", "8(x2)"},
                                {"SLURM_STEP_NODELIST", "gpu[012-013]"},
                                {"SLURM_JOB_ID", "4711"}});
  EXPECT_EQ(world.rank, 9);
  EXPECT_EQ(world.num_ranks, 16);
  EXPECT_EQ(world.local_rank, 1);
  EXPECT_EQ(world.num_local_ranks, 8);
  EXPECT_EQ(world.master_address, "gpu012");
  EXPECT_EQ(world.master_port, 24711);
}

TEST(World, TheFirstHostOfASlurmListIsFound) {
  EXPECT_EQ(first_host("node7"), "node7");
  EXPECT_EQ(first_host("login,node[1-3]"), "login");
  EXPECT_EQ(first_host("node[003-007,9],login"), "node003");
  EXPECT_EQ(first_host("rack1-n[12]"), "rack1-n12");
  EXPECT_EQ(first_host("n[1,4]-ib,m2"), "n1-ib");
  EXPECT_THROW(first_host(""), ConfigError);
  EXPECT_THROW(first_host("node["), ConfigError);
  EXPECT_THROW(first_host("node[]"), ConfigError);
}

TEST(World, VariablesThatAreMissingOrContradictEachOtherAreNamed) {
  const auto refuses = [](const char* name, const char* value, const std::string& part) {
    auto variables = kTorchrun;
    if (value == nullptr) {
      variables.erase(name);
    } else {
      variables[name] = value;
    }
    const std::string message = test::message_of<ConfigError>([&] { world_of(variables); });
    EXPECT_CONTAINS(message, part);
  };
  refuses("RANK", nullptr, "RANK is not set");
  refuses("RANK", "8", "rank 8 of ranks 8");
  refuses("RANK", "-1", "RANK=-1");
  refuses("WORLD_SIZE", "many", "WORLD_SIZE=many");
  refuses("LOCAL_RANK", nullptr, "LOCAL_RANK is not set");
  refuses("LOCAL_RANK", "4", "local rank 4");
  refuses("MASTER_ADDR", nullptr, "MASTER_ADDR is not set");
  refuses("MASTER_PORT", "0", "MASTER_PORT=0");
}

}  // namespace
}  // namespace scrna::dist
