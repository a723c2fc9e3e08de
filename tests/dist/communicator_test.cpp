#include "lib/dist/communicator.h"

#include <atomic>

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "tests/support/ranks.h"

namespace scrna::dist {
namespace {

using test::run_good_ranks;
using test::run_ranks;

TEST(Communicator, AloneEveryCallIsTheIdentity) {
  Communicator alone;
  EXPECT_FALSE(alone.is_connected());
  EXPECT_TRUE(alone.is_first());
  EXPECT_EQ(alone.num_ranks(), 1);
  const at::Tensor x = at::arange(5, at::kFloat);
  alone.all_reduce(x).wait();
  alone.broadcast(x).wait();
  EXPECT_TRUE(at::equal(x, at::arange(5, at::kFloat)));
  EXPECT_EQ(alone.sum({1, 2}), (std::vector<double>{1, 2}));
  EXPECT_EQ(alone.all_gather("a"), std::vector<std::string>{"a"});
  alone.barrier();
  EXPECT_THROW(alone.together([] { throw DataError("no"); }), DataError);
}

TEST(Communicator, TensorsAreSummedOnAllRanks) {
  for (const int64_t ranks : {1, 2, 4}) {
    run_good_ranks(ranks, [&](Communicator& communicator) {
      for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kLong}) {
        const at::Tensor x = at::arange(32, type).add_(communicator.rank());
        Work work = communicator.all_reduce(x);
        work.wait();
        EXPECT_TRUE(at::equal(x, at::arange(32, type).mul_(ranks).add_(ranks * (ranks - 1) / 2))) << type;
      }
      const at::Tensor largest = at::full({2}, communicator.rank(), at::kFloat);
      communicator.all_reduce(largest, Reduction::kMax).wait();
      EXPECT_EQ(largest[1].item<float>(), static_cast<float>(ranks - 1));
      const at::Tensor from_last = at::full({3}, communicator.rank(), at::kFloat);
      communicator.broadcast(from_last, ranks - 1).wait();
      EXPECT_EQ(from_last[2].item<float>(), static_cast<float>(ranks - 1));
    });
  }
}

TEST(Communicator, CountsAndTextsReachEveryRank) {
  run_good_ranks(3, [](Communicator& communicator) {
    const auto rank = static_cast<std::size_t>(communicator.rank());
    EXPECT_EQ(communicator.sum({1, static_cast<double>(rank), 9007199254740990.0 / 3}),
              (std::vector<double>{3, 3, 9007199254740990.0}));
    const std::string text(1000 * rank, static_cast<char>('a' + rank));  // the first is empty
    EXPECT_EQ(communicator.all_gather(text),
              (std::vector<std::string>{"", std::string(1000, 'b'), std::string(2000, 'c')}));
    EXPECT_EQ(communicator.all_gather(""), std::vector<std::string>(3));
  });
}

TEST(Communicator, ABarrierWaitsForAll) {
  std::atomic<int> arrived = 0;
  run_good_ranks(3, [&](Communicator& communicator) {
    if (communicator.rank() == 2) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    ++arrived;
    communicator.barrier();
    EXPECT_EQ(arrived, 3);
  });
}

TEST(Communicator, WhatFailsOnOneRankFailsOnAllWithItsExitCode) {
  const auto problems = run_ranks(3, [](Communicator& communicator) {
    communicator.together([] {});
    communicator.together([&] {
      if (communicator.rank() == 1) throw DataError("cells.h5ad: cannot read");
    });
  });
  for (std::size_t rank = 0; rank < problems.size(); ++rank) {
    ASSERT_TRUE(problems[rank]) << rank;
    try {
      std::rethrow_exception(problems[rank]);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kData);
      EXPECT_STREQ(error.what(), rank == 1 ? "cells.h5ad: cannot read" : "rank 1: cells.h5ad: cannot read");
    }
  }
}

TEST(Communicator, ARankThatLeavesIsNoticedByTheOthersAtOnce) {
  const double start = now_seconds();
  const auto problems = run_ranks(3, [](Communicator& communicator) {
    communicator.barrier();
    if (communicator.rank() == 2) throw DataError("away");
    communicator.barrier();
  });
  EXPECT_LT(now_seconds() - start, 30) << "the timeout is 60 s";
  for (std::size_t rank = 0; rank < 2; ++rank) {
    ASSERT_TRUE(problems[rank]);
    EXPECT_THROW(std::rethrow_exception(problems[rank]), DeviceError);
    EXPECT_NE(message_of(problems[rank]).find(fmt::format("rank {} of 3", rank)), std::string::npos)
        << message_of(problems[rank]);
  }
}

TEST(Communicator, ARankThatDoesNotAnswerIsGivenUpAfterTheTimeout) {
  std::atomic<bool> is_over = false;
  const double start = now_seconds();
  const auto problems = run_ranks(
      2,
      [&](Communicator& communicator) {
        communicator.barrier();
        if (communicator.rank() == 1) {
          while (!is_over) std::this_thread::sleep_for(std::chrono::milliseconds(20));
          return;
        }
        try {
          communicator.barrier();
        } catch (...) {
          is_over = true;
          throw;
        }
      },
      std::chrono::seconds(2));
  const double seconds = now_seconds() - start;
  EXPECT_GT(seconds, 1.5);
  EXPECT_LT(seconds, 20);
  ASSERT_TRUE(problems[0]);
  EXPECT_NE(message_of(problems[0]).find("did not answer within 2 s (dist.timeout_seconds)"),
            std::string::npos);
}

TEST(Communicator, RanksThatDoNotMeetSayWhere) {
  const auto [listening, port] = test::listen_on_loopback();
  World world{.rank = 0,
              .num_ranks = 2,
              .num_local_ranks = 2,
              .master_address = "127.0.0.1",
              .master_port = port,
              .launcher = "a test"};
  world.listening_socket = listening;
  try {
    Communicator communicator(world, at::kCPU, std::chrono::seconds(1));
    FAIL() << "it met a rank that is not there";
  } catch (const DeviceError& error) {
    EXPECT_NE(std::string(error.what()).find(fmt::format("did not meet at 127.0.0.1:{}: not within 1 s", port)),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace scrna::dist
