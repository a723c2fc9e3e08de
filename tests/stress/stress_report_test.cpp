// The page of a table: what is on it of few arms and of many, of a table that is done and of one that is not.
#include "lib/stress/stress_report.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/stress/stress_tables.h"
#include "tests/stress/made_arms.h"

namespace scrna::stress {
namespace {

StressReport report_of(const std::vector<Made>& made) {
  StressReport table{.title = "T",
                     .description = "D",
                     .machine = {{"GPU", "X"}},
                     .command = "c",
                     .arms = {},
                     .failures = {},
                     .planned = {}};
  for (const Made& one : made) {
    table.arms.push_back(make(one));
    table.planned.push_back(table.arms.back().name);
  }
  return table;
}

// Softmax jumps at 0.01 and diverges at 0.1, sigmoid jumps at 0.1.
std::vector<Made> ladders(const std::vector<std::string>& widths, int seeds) {
  std::vector<Made> made;
  for (const std::string& width : widths)
    for (const double clip_norm : {0.0, 1.0})
      for (const double rate : {0.001, 0.01, 0.1})
        for (int seed = 1; seed <= seeds; ++seed)
          for (const bool is_sigmoid : {false, true})
            made.push_back({.is_sigmoid = is_sigmoid,
                            .learning_rate = rate,
                            .diverged_at = !is_sigmoid && rate > 0.05 ? 29 : 0,
                            .seed = seed,
                            .clip_norm = clip_norm,
                            .jump = rate > (is_sigmoid ? 0.05 : 0.005) ? 20.0 : 1.0,
                            .width = width});
  return made;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t number = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++number;
  return number;
}

void expect_parts(const std::string& html, const std::vector<const char*>& parts) {
  for (const char* part : parts) EXPECT_NE(html.find(part), std::string::npos) << part;
}

TEST(StressReportPage, OfFewArmsHoldsEveryVerdictFigureAndFailure) {
  StressReport table = report_of({{.is_sigmoid = true, .learning_rate = 1e-3},
                                  {.is_sigmoid = false, .learning_rate = 1e-3},
                                  {.is_sigmoid = true, .learning_rate = 1e-2},
                                  {.is_sigmoid = false, .learning_rate = 1e-2, .diverged_at = 20}});
  table.planned.emplace_back("gone");
  table.failures = {{"gone", "exit code 3: no file"}};
  expect_parts(
      stress_report(table).html(),
      {"Reproduced", "Not testable at this budget", "\"panel-loss\"", "\"panel-grad-norm\"",
       "\"panel-max-score\"", "rate-loss-0", "rate-jump-0", "rate-score-0", "4 of 5 arms",
       "diverged at step 20", "exit code 3: no file", "gone</td><td class=\"text muted\">not begun"});
  table.arms.clear();
  expect_parts(stress_report(table).html(), {"0 of 5 arms", "5 arms are missing, 0 of them begun"});
}

TEST(StressReportPage, OfManySeedsCountsThem) {
  std::vector<Made> made;
  for (int seed = 1; seed <= 12; ++seed) {
    made.push_back({.is_sigmoid = false, .learning_rate = 1e-4, .diverged_at = seed > 9 ? 20 : 0, .seed = seed});
    made.push_back({.is_sigmoid = true, .learning_rate = 1e-4, .seed = seed});
  }
  const StressReport table = report_of(made);
  const report::Table firsts = first_rates_table(groups_of(table.arms));
  EXPECT_EQ(firsts.rows[0][0].text, "no clipping · 1 rate, 10⁻⁴ · 12 seeds");
  EXPECT_EQ(firsts.rows[2][1].text, "10⁻⁴ in 3, none in 9");
  EXPECT_EQ(firsts.rows[2][2].text, "none");
}

TEST(StressReportPage, OfManyArmsSaysWhereEachAttentionFirstComesToGrief) {
  const StressReport table = report_of(ladders({"8", "16"}, 2));
  const std::vector<ArmGroup> groups = groups_of(table.arms);
  ASSERT_EQ(groups.size(), 4U);
  const report::Table firsts = first_rates_table(groups);
  ASSERT_EQ(firsts.rows.size(), 12U);  // a heading and two rows each
  EXPECT_EQ(firsts.rows[0][0].text, "width 8, no clipping · 3 rates, 0.001 to 0.1 · seeds 1, 2");
  EXPECT_EQ(firsts.rows[1][1].text, "0.01");
  EXPECT_EQ(firsts.rows[1][2].text, "0.1");
  EXPECT_EQ(firsts.rows[1][3].text, "softmax");
  EXPECT_EQ(firsts.rows[2][1].text, "0.1");
  EXPECT_EQ(firsts.rows[2][2].text, "none");
  EXPECT_EQ(
      first_rates_words(groups),
      "Without clipping, on 4 ladders of learning rates that both attentions climbed (one for each setting "
      "and seed). "
      "Diverged at the lower rate: softmax in 4, sigmoid in 0, both at the same rate in 0, neither in 0. "
      "Gradient norm "
      "jumped at the lower rate: softmax in 4, sigmoid in 0, both at the same rate in 0, neither in 0.");

  const report::Table merged = merged_table(groups);
  ASSERT_EQ(merged.rows.size(), 4U * (1 + 3 * 2));
  EXPECT_EQ(merged.rows[5][0].text, "0.1");
  EXPECT_EQ(merged.rows[5][3].text, "2 (step 29, 29)");
  EXPECT_EQ(merged.rows[5][4].text, "–") << "arms that diverged have no final loss";
  EXPECT_EQ(merged.rows[6][5].text, "20");
  EXPECT_EQ(merged.rows[6][5].css_class, "warn");

  const std::string html = stress_report(table).html();
  // A pair of figures a panel and group; all groups but one, and the arms one by one, are folded away.
  EXPECT_EQ(count(html, "<figure id=\"panel-"), 3U * 2 * 4);
  EXPECT_EQ(count(html, "<figure id=\"rate-"), 3U * 2);
  expect_parts(html, {"<summary>all 48 arms</summary>", "<summary>width 16, clipped at 1: 12 arms</summary>",
                      "class=\"band s1\"", "48 of 48 arms"});
  EXPECT_EQ(html.find("not done"), std::string::npos);
}

TEST(StressReportPage, OfATableThatWasCutNamesWhatIsMissingAndComparesOnlyWhatHasEnded) {
  std::vector<Made> made = ladders({"8"}, 1);
  made[5].steps_done = 7;  // sigmoid, unclipped, 0.1
  StressReport table = report_of(made);
  table.arms.pop_back();
  const auto missing = missing_arms(table);
  ASSERT_EQ(missing.size(), 2U);
  EXPECT_EQ(missing[0].second, "at step 7 of 100");
  EXPECT_EQ(missing[1].second, kNotBegun);
  const std::string html = stress_report(table).html();
  expect_parts(html, {"10 of 12 arms have ended", "2 arms are missing, 1 of them begun",
                      "<summary>the 2 missing arms</summary>", "2 rates, 0.001 to 0.01"});
}

}  // namespace
}  // namespace scrna::stress
