// Verdicts on made-up arms: each word where it belongs, and none where the arms cannot tell.
#include "lib/stress/claims.h"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/stress/sign_test.h"
#include "tests/stress/made_arms.h"
#include "tests/support/tolerance.h"

namespace scrna::stress {
namespace {

std::vector<Word> words(const std::vector<Made>& made) {
  std::vector<ArmData> arms;
  for (const Made& one : made) arms.push_back(make(one));
  std::vector<Word> words;
  for (const Verdict& verdict : judge(arms)) words.push_back(verdict.word);
  return words;
}

constexpr std::size_t kAlone = 0, kLadder = 1, kJumps = 2, kCalm = 3, kScores = 4, kBounded = 5, kRemedies = 6;

TEST(Claims, WithoutArmsNothingCanBeTold) {
  for (const Word word : words({})) EXPECT_EQ(word, Word::kNotTestable);
}

TEST(Claims, SoftmaxAloneNeedsAPairThatTellsThemApart) {
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 50}, {.is_sigmoid = true}})[kAlone],
            Word::kReproduced);
  EXPECT_EQ(words({{.is_sigmoid = false}, {.is_sigmoid = true, .diverged_at = 50}})[kAlone],
            Word::kNotReproduced);
  EXPECT_EQ(words({{.is_sigmoid = false}, {.is_sigmoid = true}})[kAlone], Word::kNotTestable);
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 5}, {.is_sigmoid = true, .diverged_at = 50}})[kAlone],
            Word::kNotTestable);
  // Another seed or learning rate is no pair, nor is a clipped arm.
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 50, .seed = 2}, {.is_sigmoid = true}})[kAlone],
            Word::kNotTestable);
  EXPECT_EQ(
      words({{.is_sigmoid = false, .learning_rate = 1, .diverged_at = 50}, {.is_sigmoid = true}})[kAlone],
      Word::kNotTestable);
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 50, .clip_norm = 1},
                   {.is_sigmoid = true, .clip_norm = 1}})[kAlone],
            Word::kNotTestable);
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 50},
                   {.is_sigmoid = true},
                   {.is_sigmoid = false, .seed = 2},
                   {.is_sigmoid = true, .diverged_at = 9, .seed = 2}})[kAlone],
            Word::kMixed);
  // Calm for as long as the paper's run, at its rate: that is evidence.
  EXPECT_EQ(words({{.is_sigmoid = false, .learning_rate = 1e-4, .steps = 80000},
                   {.is_sigmoid = true, .learning_rate = 1e-4, .steps = 80000}})[kAlone],
            Word::kNotReproduced);
}

TEST(SignTest, IsTheBinomialsTwoTails) {
  EXPECT_DOUBLE_EQ(sign_test(0, 0), 1);
  EXPECT_NEAR(sign_test(3, 0), 0.25, test::kFloat64Metric);
  EXPECT_NEAR(sign_test(1, 9), 22.0 / 1024, test::kFloat64Metric);
  EXPECT_NEAR(sign_test(14, 0), 2 * std::pow(0.5, 14), test::kFloat64Metric);
  EXPECT_DOUBLE_EQ(sign_test(5, 5), 1);
}

TEST(Claims, PairsThatDifferSayHowEasilyChanceDoesThat) {
  const auto reason = [](int pairs) {
    std::vector<ArmData> arms;
    for (int seed = 0; seed < pairs; ++seed) {
      arms.push_back(make({.is_sigmoid = false, .diverged_at = 50, .seed = seed}));
      arms.push_back(make({.is_sigmoid = true, .seed = seed}));
    }
    return judge(arms)[kAlone].reason;
  };
  EXPECT_NE(reason(3).find("p = 0.25, little evidence)"), std::string::npos) << reason(3);
  EXPECT_NE(reason(8).find("p = 0.0078)"), std::string::npos) << reason(8);
}

TEST(Claims, LaddersAreComparedOnTheSameRates) {
  const auto ladder = [](bool is_sigmoid, double first_diverged, int seed = 1) {
    std::vector<Made> arms;
    for (const double rate : {0.001, 0.01, 0.1})
      arms.push_back({.is_sigmoid = is_sigmoid,
                      .learning_rate = rate,
                      .diverged_at = rate >= first_diverged ? 5 : 0,
                      .seed = seed});
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
  EXPECT_EQ(words(both(both(ladder(true, 0.1), ladder(false, 0.01)),
                       both(ladder(true, 0.01, 2), ladder(false, 0.1, 2))))[kLadder],
            Word::kMixed);
}

TEST(Claims, JumpsOfTheGradientNormAreComparedInPairs) {
  const auto pair = [](double softmax, double sigmoid, int seed = 1) {
    return std::vector<Made>{{.is_sigmoid = false, .seed = seed, .jump = softmax},
                             {.is_sigmoid = true, .seed = seed, .jump = sigmoid}};
  };
  const auto two = [&](double softmax, double sigmoid, double softmax_again, double sigmoid_again) {
    std::vector<Made> made = pair(softmax, sigmoid);
    for (const Made& one : pair(softmax_again, sigmoid_again, 2)) made.push_back(one);
    return made;
  };
  EXPECT_EQ(words(two(20, 2, 20, 2))[kJumps], Word::kReproduced);
  EXPECT_EQ(words(two(2, 20, 2, 20))[kJumps], Word::kNotReproduced);
  EXPECT_EQ(words(two(20, 20, 20, 20))[kJumps], Word::kNotReproduced);
  EXPECT_EQ(words(two(9, 9, 9, 9))[kJumps], Word::kNotTestable);
  EXPECT_EQ(words(two(20, 2, 2, 20))[kJumps], Word::kMixed);
  EXPECT_EQ(words(two(20, 2, 20, 20))[kJumps], Word::kMixed) << "in as many pairs sigmoid's jumped, too";
  EXPECT_EQ(words(two(20, 2, 2, 2))[kJumps], Word::kNotTestable) << "one pair";
  EXPECT_EQ(words(two(2, 20, 2, 2))[kJumps], Word::kNotTestable) << "one pair";
  std::vector<Made> clipped = two(20, 2, 20, 2);
  for (Made& one : clipped) one.clip_norm = 1;
  EXPECT_EQ(words(clipped)[kJumps], Word::kNotTestable);
}

TEST(Claims, CalmIsMeasuredByThePapersNumbers) {
  EXPECT_EQ(words({{.is_sigmoid = true}})[kCalm], Word::kNotTestable);  // calm, but short
  EXPECT_EQ(words({{.is_sigmoid = true, .steps = 80000}})[kCalm], Word::kReproduced);
  EXPECT_EQ(words({{.is_sigmoid = true, .grad_norm = 500}})[kCalm], Word::kNotReproduced);
  EXPECT_EQ(words({{.is_sigmoid = true, .score = 50, .last_score = 50}})[kCalm], Word::kNotReproduced);
  EXPECT_EQ(words({{.is_sigmoid = true, .diverged_at = 20}, {.is_sigmoid = true, .seed = 2}})[kCalm],
            Word::kMixed);
  EXPECT_EQ(words({{.is_sigmoid = false}})[kCalm], Word::kNotTestable);
}

TEST(Claims, ScoresOfSoftmaxThatDiverged) {
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 20, .last_score = 3e8}})[kScores], Word::kReproduced);
  EXPECT_EQ(words({{.is_sigmoid = false, .diverged_at = 20, .last_score = 5}})[kScores],
            Word::kNotReproduced);
  EXPECT_EQ(words({{.is_sigmoid = false, .last_score = 3e8}})[kScores], Word::kNotTestable);
  EXPECT_EQ(words({{.is_sigmoid = false}})[kBounded], Word::kReproduced);
}

TEST(Claims, RemediesAreComparedWithTheSoftmaxArmThatDiverged) {
  const Made plain{.is_sigmoid = false, .diverged_at = 20};
  EXPECT_EQ(words({plain, {.is_sigmoid = false, .clip_norm = 1}})[kRemedies], Word::kNotReproduced);
  EXPECT_EQ(words({plain, {.is_sigmoid = false, .diverged_at = 30, .clip_norm = 1}})[kRemedies],
            Word::kReproduced);
  EXPECT_EQ(words({plain,
                   {.is_sigmoid = false, .diverged_at = 30, .clip_norm = 1},
                   {.is_sigmoid = false, .qk_norm = "layer_norm"}})[kRemedies],
            Word::kMixed);
  EXPECT_EQ(words({{.is_sigmoid = false}, {.is_sigmoid = false, .clip_norm = 1}})[kRemedies],
            Word::kNotTestable);
}

}  // namespace
}  // namespace scrna::stress
