// Which arms belong together, how seeds are merged, and where each attention first comes to grief.
#include "lib/stress/arm_groups.h"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/report/scale.h"
#include "lib/stress/arm_runner.h"
#include "tests/stress/made_arms.h"

namespace scrna::stress {
namespace {

using Earlier = FirstRates::Earlier;

std::vector<ArmData> arms_of(const std::vector<Made>& made) {
  std::vector<ArmData> arms;
  for (const Made& one : made) arms.push_back(make(one));
  return arms;
}

TEST(ArmGroups, DifferInAttentionRateAndSeedAlone) {
  const std::vector<ArmData> arms = arms_of({{.width = "8"},
                                             {.is_sigmoid = false, .seed = 2, .width = "8"},
                                             {.clip_norm = 1, .width = "8"},
                                             {.learning_rate = 0.1, .width = "16"},
                                             {.qk_norm = "layer_norm", .width = "16"}});
  const std::vector<ArmGroup> groups = groups_of(arms);
  ASSERT_EQ(groups.size(), 4U);
  EXPECT_EQ(groups[0].name(), "width 8, no clipping");
  EXPECT_EQ(groups[0].arms.size(), 2U);
  EXPECT_EQ(groups[0].of(false).size(), 1U);
  EXPECT_TRUE(groups[0].is_plain);
  EXPECT_EQ(groups[1].name(), "width 8, clipped at 1");
  EXPECT_FALSE(groups[1].is_plain);
  EXPECT_EQ(groups[2].name(), "width 16, no clipping");
  EXPECT_EQ(groups[3].name(), "width 16, no clipping, QK-norm");
  EXPECT_EQ(groups_of(arms_of({{}, {.seed = 2}})).front().name(), "no clipping");
  EXPECT_TRUE(groups_of({}).empty());
}

TEST(ArmGroups, HoldArmsOfAnEarlierVersionOfTheProgramToo) {
  const std::vector<Made> made = {{.is_sigmoid = false}, {.is_sigmoid = true}};
  std::vector<ArmData> arms;
  for (const bool is_old : {true, false}) {
    for (const Made& one : made) {
      report::RunData run = make(one).run;
      if (!is_old) run.config.emplace_back("model.gelu_precision", "exact");
      complete_settings(run);
      EXPECT_EQ(run.setting("model.gelu_precision"), "exact");
      EXPECT_EQ(run.setting("model.width"), one.width);
      arms.push_back(arm_data("arm", std::move(run)));
    }
  }
  EXPECT_EQ(groups_of(arms).size(), 1U);
}

TEST(FirstRates, SeedsStandInTheOrderOfTheirNumbers) {
  std::vector<Made> made;
  for (const int seed : {10, 2, 1}) {
    made.push_back({.is_sigmoid = false, .seed = seed});
    made.push_back({.is_sigmoid = true, .seed = seed});
  }
  const std::vector<ArmData> arms = arms_of(made);
  std::vector<std::string> seeds;
  for (const auto& [seed, first] : first_rates(groups_of(arms).front(), [](const ArmData&) { return false; }))
    seeds.push_back(seed);
  EXPECT_EQ(seeds, (std::vector<std::string>{"1", "2", "10"}));
}

TEST(Spread, OfSeedsIsTheNumberBothOrMedianAndRange) {
  const auto text = [](const std::vector<double>& values) {
    return text_of(spread_of(values), report::short_number);
  };
  EXPECT_EQ(text({}), "–");
  EXPECT_EQ(text({3}), "3");
  EXPECT_EQ(text({5, 3}), "3 – 5");
  EXPECT_EQ(text({3, 3}), "3");
  EXPECT_EQ(text({9, 1, 2}), "2 (1 – 9)");
  EXPECT_EQ(text({4, 1, 2, 3}), "2.5 (1 – 4)");
  EXPECT_EQ(text({INFINITY}), "∞");
  EXPECT_EQ(text({2, INFINITY}), "2, ∞");
}

TEST(FirstRates, AreOfRatesThatBothAttentionsHaveEnded) {
  const auto has_diverged = [](const ArmData& arm) { return arm.diverged_step().has_value(); };
  const auto firsts = [&](const std::vector<Made>& made) {
    const std::vector<ArmData> arms = arms_of(made);
    return first_rates(groups_of(arms).front(), has_diverged);
  };
  std::vector<Made> made;
  for (const double rate : {0.001, 0.01, 0.1}) {
    made.push_back({.is_sigmoid = false, .learning_rate = rate, .diverged_at = rate >= 0.01 ? 9 : 0});
    made.push_back({.is_sigmoid = true, .learning_rate = rate, .diverged_at = rate >= 0.1 ? 9 : 0});
  }
  FirstRates first = firsts(made).at("1");
  EXPECT_EQ(first.softmax, 0.01);
  EXPECT_EQ(first.sigmoid, 0.1);
  EXPECT_EQ(first.earlier(), Earlier::kSoftmax);
  EXPECT_EQ(first.rates.size(), 3U);

  made[3].steps_done = 5;  // sigmoid at 0.01 has not ended: nothing is said of that rate
  first = firsts(made).at("1");
  EXPECT_EQ(first.softmax, 0.1);
  EXPECT_EQ(first.earlier(), Earlier::kSame);
  made.pop_back();  // nor of the last
  first = firsts(made).at("1");
  EXPECT_EQ(first.earlier(), Earlier::kNeither);
  EXPECT_EQ(first.rates.size(), 1U);
  EXPECT_TRUE(firsts({{.is_sigmoid = false, .diverged_at = 9}}).empty()) << "softmax alone";

  // Seeds are ladders of their own.
  const auto two = firsts({{.is_sigmoid = false, .diverged_at = 9, .seed = 1},
                           {.is_sigmoid = true, .seed = 1},
                           {.is_sigmoid = false, .seed = 2},
                           {.is_sigmoid = true, .diverged_at = 9, .seed = 2}});
  EarlierCounts counts;
  counts.add(two);
  EXPECT_EQ(counts.softmax, 1);
  EXPECT_EQ(counts.sigmoid, 1);
  EXPECT_EQ(counts.all(), 2);
}

}  // namespace
}  // namespace scrna::stress
