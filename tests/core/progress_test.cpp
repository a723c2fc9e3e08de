#include "lib/core/progress.h"

#include <algorithm>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace scrna {
namespace {

// A terminal, or a file, with a clock that the test moves.
struct FakeOutput {
  explicit FakeOutput(bool is_terminal, int columns = 80) {
    output.is_terminal = is_terminal;
    output.num_columns = [columns] { return columns; };
    output.write = [this](std::string_view text) { written.emplace_back(text); };
    output.now_seconds = [this] { return seconds; };
  }
  double seconds = 1000;
  std::vector<std::string> written;
  ProgressOutput output;
};

TEST(Progress, AFileGetsALineEveryTenSecondsAndNothingBefore) {
  FakeOutput file(false);
  ProgressBar bar("vocabulary", 2700, "cells", 0, file.output);
  for (int i = 1; i <= 250; ++i) {  // 25 seconds
    file.seconds = 1000 + 0.1 * i;
    bar.update(10 * i, "loss 3.21");
  }
  ASSERT_EQ(file.written.size(), 2U);
  EXPECT_EQ(file.written[0], "[vocabulary]  37 %  1,000/2,700 cells  100/s  0:17 left  loss 3.21");
  bar.update(2700);
  bar.finish();
  ASSERT_EQ(file.written.size(), 3U) << "a long pass ends with a last line";
  EXPECT_EQ(file.written[2], "[vocabulary] 100 %  2,700/2,700 cells  108/s  0:25");
}

TEST(Progress, AShortPassWritesNothingToAFile) {
  FakeOutput file(false);
  {
    ProgressBar bar("vocabulary", 100, "cells", 0, file.output);
    file.seconds += 9;
    bar.update(100);
  }
  EXPECT_TRUE(file.written.empty()) << file.written[0];
}

TEST(Progress, ATerminalIsDrawnAtMostTenTimesASecondAndClearedAtTheEnd) {
  FakeOutput terminal(true);
  ProgressBar bar("train", 1000, "steps", 0, terminal.output);
  for (int i = 1; i <= 1000; ++i) {  // one second
    terminal.seconds = 1000 + 0.001 * i;
    bar.update(i);
  }
  EXPECT_GE(terminal.written.size(), 9U);
  EXPECT_LE(terminal.written.size(), 11U);
  EXPECT_EQ(terminal.written[0].rfind("\r\x1b[Ktrain [", 0), 0U) << terminal.written[0];
  bar.finish();
  EXPECT_EQ(terminal.written.back(), "\r\x1b[K");
  const std::size_t count = terminal.written.size();
  terminal.seconds += 5;
  bar.update(1000);
  bar.finish();
  EXPECT_EQ(terminal.written.size(), count) << "a finished bar came back";
}

TEST(Progress, ANarrowTerminalNeverWraps) {
  for (const int columns : {20, 40, 60, 200}) {
    FakeOutput terminal(true, columns);
    ProgressBar bar("träning", 1000, "steps", 0, terminal.output);
    bar.update(500, "loss 3.21 and many other words that nobody has room for");
    const std::string line = terminal.written.at(0).substr(4);  // after the clearing
    const auto is_character = [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; };
    EXPECT_LT(std::count_if(line.begin(), line.end(), is_character), columns) << line;
  }
}

TEST(Progress, AResumedRunIsTimedByWhatIsNew) {
  FakeOutput file(false);
  ProgressBar bar("train", 2000, "steps", 1000, file.output);
  file.seconds += 20;
  bar.update(1200);
  ASSERT_EQ(file.written.size(), 1U);
  EXPECT_EQ(file.written[0], "[train]  60 %  1,200/2,000 steps  10.0/s  1:20 left");
}

TEST(Progress, AnUnknownTotalShowsNoPercentage) {
  FakeOutput file(false);
  ProgressBar bar("read", 0, "cells", 0, file.output);
  file.seconds += 20;
  bar.update(1500);
  EXPECT_EQ(file.written.at(0), "[read] 1,500 cells  75.0/s  0:20");
}

TEST(Progress, ManyThreadsMayUpdate) {
  FakeOutput terminal(true);
  ProgressBar bar("read", 4000, "cells", 0, terminal.output);
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 1000; ++i) bar.update(i);
      });
    }
  }
  EXPECT_EQ(terminal.written.size(), 1U) << "the clock stands still";
}

TEST(Progress, NumbersAndTimesReadWell) {
  EXPECT_EQ(grouped(0), "0");
  EXPECT_EQ(grouped(999), "999");
  EXPECT_EQ(grouped(1000), "1,000");
  EXPECT_EQ(grouped(-1234567), "-1,234,567");
  EXPECT_EQ(grouped(-123), "-123");
  EXPECT_EQ(clock_text(7), "0:07");
  EXPECT_EQ(clock_text(754.4), "12:34");
  EXPECT_EQ(clock_text(12300), "3:25:00");
  EXPECT_EQ(clock_text(183840), "2 d 03:04");
  EXPECT_EQ(clock_text(-1), "0:00");
  EXPECT_EQ(clock_text(1e300), "long");
}

}  // namespace
}  // namespace scrna
