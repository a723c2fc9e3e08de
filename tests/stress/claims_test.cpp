// Verdicts on made-up arms: each word where it belongs, and none where the arms cannot tell.
#include "lib/stress/claims.h"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/stress/stress_report.h"

namespace scrna::stress {
namespace {

struct Made {
  bool is_sigmoid = true;
  double learning_rate = 1e-3;
  int64_t diverged_at = 0;  // 0: it finished
  int seed = 1;
  double clip_norm = 0;
  std::string qk_norm = "none";
  int64_t steps = 100;
  double grad_norm = 20, score = 3, last_score = 3;
};

ArmData make(const Made& made) {
  report::RunData run;
  run.folder = "nowhere";
  run.name = "arm";
  run.config = {{"train.steps", std::to_string(made.steps)}, {"train.seed", std::to_string(made.seed)}, {"model.attention", made.is_sigmoid ? "sigmoid" : "softmax"},
                {"model.attention_bias", "negative_log_length"}, {"model.qk_norm", made.qk_norm}, {"model.width", "8"}, {"optim.learning_rate", std::to_string(made.learning_rate)},
                {"optim.clip_norm", std::to_string(made.clip_norm)}, {"run.dir", std::to_string(made.seed)}};
  run.steps_done = made.diverged_at > 0 ? made.diverged_at : made.steps;
  for (int64_t i = 1; i <= 30; ++i) {
    for (const auto& [key, value] : {std::pair{"loss", 3.0}, std::pair{"grad_norm", made.grad_norm}, std::pair{"max_score_per_layer/layer_00", i > 25 ? made.last_score : made.score},
                                     std::pair{"sigmoid_jacobian_max_per_layer/layer_00", 0.2}, std::pair{"softmax_jacobian_max_per_layer/layer_00", 0.25},
                                     std::pair{"sigmoid_jacobian_norm_per_layer/layer_00", 0.3}, std::pair{"softmax_jacobian_norm_per_layer/layer_00", 0.4}}) {
      run.curves[key].steps.push_back(static_cast<double>(i));
      run.curves[key].values.push_back(value);
    }
  }
  if (made.diverged_at > 0) run.diverged.push_back({.step = made.diverged_at, .reason = "r", .policy = "stop", .file = "step.json"});
  return arm_data("arm", std::move(run));
}

std::vector<Word> words(const std::vector<Made>& made) {
  std::vector<ArmData> arms;
  for (const Made& one : made) arms.push_back(make(one));
  std::vector<Word> words;
  for (const Verdict& verdict : judge(arms)) words.push_back(verdict.word);
  return words;
}

constexpr std::size_t kAlone = 0, kLadder = 1, kCalm = 2, kScores = 3, kBounded = 4, kRemedies = 5;

TEST(Claims, WithoutArmsNothingCanBeTold) {
  for (const Word word : words({})) EXPECT_EQ(word, Word::kNotTestable);
}

TEST(Claims, SoftmaxAloneNeedsAPairThatTellsThemApart) {
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 50}, {.is_sigmoid = true}})[kAlone], Word::kReproduced);
  EXPECT_EQ(words({{.is_sigmoid = false}, {.is_sigmoid = true, .diverged_at = 50}})[kAlone], Word::kNotReproduced);
  EXPECT_EQ(words({{.is_sigmoid = false}, {.is_sigmoid = true}})[kAlone], Word::kNotTestable);
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 5}, {.is_sigmoid = true, .diverged_at = 50}})[kAlone], Word::kNotTestable);
  // Another seed or learning rate is no pair, nor is a clipped arm.
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 50, .seed = 2}, {.is_sigmoid = true}})[kAlone], Word::kNotTestable);
  EXPECT_EQ(words({{.is_sigmoid = false, .learning_rate = 1, .diverged_at = 50}, {.is_sigmoid = true}})[kAlone], Word::kNotTestable);
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 50, .clip_norm = 1}, {.is_sigmoid = true, .clip_norm = 1}})[kAlone], Word::kNotTestable);
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 50}, {.is_sigmoid = true}, {.is_sigmoid = false, .seed = 2}, {.is_sigmoid = true, .diverged_at = 9, .seed = 2}})[kAlone],
            Word::kMixed);
  // Calm for as long as the paper's run, at its rate: that is evidence.
  EXPECT_EQ(words({{.is_sigmoid = false, .learning_rate = 1e-4, .steps = 80000}, {.is_sigmoid = true, .learning_rate = 1e-4, .steps = 80000}})[kAlone], Word::kNotReproduced);
}

TEST(Claims, LaddersAreComparedOnTheSameRates) {
  const auto ladder = [](bool is_sigmoid, double first_diverged, int seed = 1) {
    std::vector<Made> arms;
    for (const double rate : {0.001, 0.01, 0.1}) arms.push_back({.is_sigmoid = is_sigmoid, .learning_rate = rate, .diverged_at = rate >= first_diverged ? 5 : 0, .seed = seed});
    return arms;
  };
  const auto both = [](std::vector<Made> one, const std::vector<Made>& two) {
    one.insert(one.end(), two.begin(), two.end());
    return one;
  };
  EXPECT_EQ(words(both(ladder(true, 0.1), ladder(false, 0.01)))[kLadder], Word::kReproduced);
  EXPECT_EQ(words(both(ladder(true, 9), ladder(false, 0.01)))[kLadder], Word::kReproduced);
  EXPECT_EQ(words(both(ladder(true, 0.01), ladder(false, 0.01)))[kLadder], Word::kNotReproduced);
  EXPECT_EQ(words(both(ladder(true, 0.01), ladder(false, 0.1)))[kLadder], Word::kNotReproduced);
  EXPECT_EQ(words(both(ladder(true, 9), ladder(false, 9)))[kLadder], Word::kNotTestable);
  EXPECT_EQ(words(ladder(true, 0.1))[kLadder], Word::kNotTestable);
  EXPECT_EQ(words(both(both(ladder(true, 0.1), ladder(false, 0.01)), both(ladder(true, 0.01, 2), ladder(false, 0.1, 2))))[kLadder], Word::kMixed);
}

TEST(Claims, CalmIsMeasuredByThePapersNumbers) {
  EXPECT_EQ(words({{.is_sigmoid = true}})[kCalm], Word::kNotTestable);  // calm, but short
  EXPECT_EQ(words({{.is_sigmoid = true, .steps = 80000}})[kCalm], Word::kReproduced);
  EXPECT_EQ(words({{.is_sigmoid = true, .grad_norm = 500}})[kCalm], Word::kNotReproduced);
  EXPECT_EQ(words({{.is_sigmoid = true, .score = 50, .last_score = 50}})[kCalm], Word::kNotReproduced);
  EXPECT_EQ(words({{.is_sigmoid = true, .diverged_at = 20}, {.is_sigmoid = true, .seed = 2}})[kCalm], Word::kMixed);
  EXPECT_EQ(words({{.is_sigmoid = false}})[kCalm], Word::kNotTestable);
}

TEST(Claims, ScoresOfSoftmaxThatDiverged) {
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 20, .last_score = 3e8}})[kScores], Word::kReproduced);
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 20, .last_score = 5}})[kScores], Word::kNotReproduced);
  EXPECT_EQ(words({{.is_sigmoid = false, .last_score = 3e8}})[kScores], Word::kNotTestable);
  EXPECT_EQ(words({{.is_sigmoid = false}})[kBounded], Word::kReproduced);
}

TEST(Claims, RemediesAreComparedWithTheSoftmaxArmThatDiverged) {
  const Made plain{.is_sigmoid = false, .diverged_at = 20};
  EXPECT_EQ(words({plain, {.is_sigmoid = false, .clip_norm = 1}})[kRemedies], Word::kNotReproduced);
  EXPECT_EQ(words({plain, {.is_sigmoid = false, .diverged_at = 30, .clip_norm = 1}})[kRemedies], Word::kReproduced);
  EXPECT_EQ(words({plain, {.is_sigmoid = false, .diverged_at = 30, .clip_norm = 1}, {.is_sigmoid = false, .qk_norm = "layer_norm"}})[kRemedies], Word::kMixed);
  EXPECT_EQ(words({{.is_sigmoid = false}, {.is_sigmoid = false, .clip_norm = 1}})[kRemedies], Word::kNotTestable);
}

TEST(StressReportPage, HoldsEveryVerdictFigureAndFailure) {
  StressReport table{.title = "T", .description = "D", .machine = {{"GPU", "X"}}, .command = "c", .arms = {}, .failures = {{"gone", "exit code 3: no file"}}, .num_planned = 5};
  for (const double rate : {1e-3, 1e-2}) {
    table.arms.push_back(make({.is_sigmoid = true, .learning_rate = rate}));
    table.arms.push_back(make({.is_sigmoid = false, .learning_rate = rate, .diverged_at = rate > 5e-3 ? 20 : 0}));
  }
  const std::string html = stress_report(table).html();
  for (const char* part : {"Reproduced", "Not testable at this budget", "panel-loss", "panel-grad-norm", "panel-max-score", "rate-loss-0", "rate-score-0", "4 of 5 arms", "diverged at step 20",
                           "exit code 3: no file"}) {
    EXPECT_NE(html.find(part), std::string::npos) << part;
  }
  table.arms.clear();
  EXPECT_NE(stress_report(table).html().find("0 of 5 arms"), std::string::npos);
}

}  // namespace
}  // namespace scrna::stress
