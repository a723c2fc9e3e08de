// What PhaseClock makes of its marks, on the device that the file is compiled for: the phases add up to the
// span, and spans and the gaps between clocks add up to the time of everything. No duration is expected but
// by the host's clock around it.
#include "lib/train/phase_clock.h"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "lib/core/clock.h"
#include "tests/support/test_device.h"

namespace scrna::train {
namespace {

using namespace std::chrono_literals;

class PhaseClockTest : public test::OnDevice {};

// An event's time has a resolution of half a microsecond.
constexpr double kTickSeconds = 2e-6;

TEST_F(PhaseClockTest, PhasesAddUpToTheSpanAndSpansWithTheirGapsToTheWhole) {
  const double begin = now_seconds();
  PhaseClock first(device());
  std::this_thread::sleep_for(3ms);
  first.end(&PhaseSeconds::forward);
  std::this_thread::sleep_for(2ms);
  first.end(&PhaseSeconds::backward);
  std::this_thread::sleep_for(5ms);  // between the steps
  PhaseClock second(device());
  std::this_thread::sleep_for(1ms);
  second.end(&PhaseSeconds::forward);
  first.wait();
  second.wait();
  const double whole = now_seconds() - begin;

  PhaseSeconds seconds;
  first.add_to(seconds);
  EXPECT_GE(seconds.forward, 3e-3 - 1e-3);  // a GPU may have begun to listen after the first mark was made
  EXPECT_GE(seconds.backward, 2e-3 - 1e-3);
  EXPECT_EQ(seconds.optimizer, 0.0);
  EXPECT_NEAR(first.span_seconds(), seconds.forward + seconds.backward, 2 * kTickSeconds);
  EXPECT_GE(second.seconds_after(first), 5e-3 - 1e-3);
  EXPECT_LE(first.span_seconds() + second.seconds_after(first) + second.span_seconds(), whole + kTickSeconds);
}

TEST_F(PhaseClockTest, PhasesOfSeveralMicroBatchesAreAdded) {
  PhaseClock clock(device());
  PhaseSeconds before, seconds{.forward = 1.0};
  for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
    std::this_thread::sleep_for(2ms);
    clock.end(&PhaseSeconds::forward);
    clock.end(&PhaseSeconds::backward);
  }
  clock.wait();
  clock.add_to(before);
  clock.add_to(seconds);
  EXPECT_GE(before.forward, 4e-3 - 1e-3);
  EXPECT_DOUBLE_EQ(seconds.forward, 1.0 + before.forward);
  EXPECT_NEAR(clock.span_seconds(), before.forward + before.backward, 4 * kTickSeconds);
}

}  // namespace
}  // namespace scrna::train
