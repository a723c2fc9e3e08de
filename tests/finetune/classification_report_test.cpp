// Scores against numbers worked out by hand, and against those of lib/eval; compare_finetune.py has scikit-learn's.
#include "lib/finetune/classification_report.h"

#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/random.h"
#include "lib/eval/classification.h"
#include "tests/support/expect_error.h"

namespace scrna::finetune {
namespace {

const std::vector<std::string> kNames = {"a", "b", "c, \"d\""};

//            said  a  b  c
//   a (5 cells)    3  1  1
//   b (3 cells)    0  3  0
//   c (2 cells)    2  0  0
const std::vector<int32_t> kTruth = {0, 0, 0, 0, 0, 1, 1, 1, 2, 2}, kSaid = {0, 0, 0, 1, 2, 1, 1, 1, 0, 0};

TEST(ClassificationReport, IsWhatHandsWorkOut) {
  const ClassificationReport report = classification_report(kTruth, kSaid, kNames);
  EXPECT_EQ(report.confusion, (std::vector<int64_t>{3, 1, 1, 0, 3, 0, 2, 0, 0}));
  EXPECT_EQ(report.count(0, 2), 1);
  EXPECT_EQ(report.count(2, 0), 2);
  EXPECT_DOUBLE_EQ(report.accuracy, 0.6);
  EXPECT_DOUBLE_EQ(report.majority_accuracy, 0.5);
  EXPECT_DOUBLE_EQ(report.classes[0].precision, 3.0 / 5);
  EXPECT_DOUBLE_EQ(report.classes[0].recall, 3.0 / 5);
  EXPECT_DOUBLE_EQ(report.classes[1].precision, 3.0 / 4);
  EXPECT_DOUBLE_EQ(report.classes[1].recall, 1.0);
  EXPECT_DOUBLE_EQ(report.classes[1].f1, 6.0 / 7);
  EXPECT_DOUBLE_EQ(report.classes[2].precision, 0.0);  // said once, never right
  EXPECT_DOUBLE_EQ(report.classes[2].f1, 0.0);
  EXPECT_DOUBLE_EQ(report.macro_f1, (0.6 + 6.0 / 7 + 0) / 3);
  EXPECT_DOUBLE_EQ(report.weighted_f1, (5 * 0.6 + 3 * 6.0 / 7) / 10);
}

TEST(ClassificationReport, AClassThatNobodyIsOrSaysDoesNotCountInTheMacroMean) {
  const ClassificationReport report =
      classification_report(std::vector<int32_t>{0, 0, 1}, std::vector<int32_t>{0, 0, 1}, kNames);
  EXPECT_DOUBLE_EQ(report.macro_f1, 1.0);
  EXPECT_EQ(report.classes[2].cells, 0);
  // Said of a cell of another class it does, as in scikit-learn.
  const ClassificationReport said =
      classification_report(std::vector<int32_t>{0, 0, 1}, std::vector<int32_t>{0, 0, 2}, kNames);
  EXPECT_DOUBLE_EQ(said.macro_f1, 1.0 / 3);
}

TEST(ClassificationReport, AgreesWithTheScoresOfEvaluate) {
  const RandomStream random(3, RandomPurpose::kEvaluate);
  eval::Labels labels{.codes = {}, .names = kNames};
  std::vector<int32_t> said;
  for (uint64_t i = 0; i < 300; ++i) {
    labels.codes.push_back(static_cast<int32_t>(i % 3));
    said.push_back(random.below(4, 2 * i) == 0 ? static_cast<int32_t>(random.below(3, 2 * i + 1)) : labels.codes.back());
  }
  const eval::Accuracy expected = eval::accuracy_of(said, labels);
  const ClassificationReport report = classification_report(labels.codes, said, kNames);
  EXPECT_DOUBLE_EQ(report.accuracy, expected.accuracy);
  EXPECT_DOUBLE_EQ(report.macro_f1, expected.macro_f1);
}

TEST(ClassificationReport, FilesHaveOneLinePerClassAndQuoteNames) {
  const ClassificationReport report = classification_report(kTruth, kSaid, kNames);
  EXPECT_EQ(per_class_csv(report),
            "class,cells,predicted,precision,recall,f1\n"
            "a,5,5,0.6,0.6,0.6\n"
            "b,3,4,0.75,1,0.857142857\n"
            "\"c, \"\"d\"\"\",2,1,0,0,0\n");
  EXPECT_EQ(confusion_csv(report),
            ",a,b,\"c, \"\"d\"\"\"\n"
            "a,3,1,1\n"
            "b,0,3,0\n"
            "\"c, \"\"d\"\"\",2,0,0\n");
  EXPECT_CONTAINS(per_class_table(report, 2), "1 rarer classes");
}

TEST(ClassificationReport, CodesWithoutANameAreAMistakeOfOurs) {
  EXPECT_THROW(classification_report(std::vector<int32_t>{3}, std::vector<int32_t>{0}, kNames), InternalError);
  EXPECT_THROW(classification_report(std::vector<int32_t>{0}, std::vector<int32_t>{-1}, kNames), InternalError);
  EXPECT_THROW(classification_report(std::vector<int32_t>{0}, std::vector<int32_t>{}, kNames), InternalError);
}

}  // namespace
}  // namespace scrna::finetune
