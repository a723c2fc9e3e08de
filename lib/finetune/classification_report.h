// How well classes are predicted: the confusion matrix and everything that follows from it, by the
// definitions of scikit-learn's classification_report (zero_division = 0). tests/oracle/compare_finetune.py
// compares.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace scrna::finetune {

struct ClassScores {
  std::string name;
  int64_t cells = 0;      // that are of this class
  int64_t predicted = 0;  // that are said to be
  double precision = 0, recall = 0, f1 = 0;
};

struct ClassificationReport {
  std::vector<ClassScores> classes;
  std::vector<int64_t> confusion;  // [classes, classes] rows: what cells are, columns: what is said
  int64_t cells = 0;
  double accuracy = 0;
  double macro_f1 = 0;           // mean over the classes that have cells or predictions
  double weighted_f1 = 0;        // mean over cells
  double majority_accuracy = 0;  // of saying the most frequent class for all

  [[nodiscard]] int64_t count(std::size_t truth, std::size_t said) const {
    return confusion[truth * classes.size() + said];
  }
};

/// truth, predicted [cells]: indices into names. Throws InternalError for others and for different lengths.
ClassificationReport classification_report(std::span<const int32_t> truth, std::span<const int32_t> predicted,
                                           const std::vector<std::string>& names);

/// "class,cells,predicted,precision,recall,f1", a line for each class.
std::string per_class_csv(const ClassificationReport& report);
/// First line: "" and the classes as predicted; then a line for each class as it is.
std::string confusion_csv(const ClassificationReport& report);

/// The classes as lines for people, the most frequent first, at most `most_lines`.
std::string per_class_table(const ClassificationReport& report, std::size_t most_lines = 30);

}  // namespace scrna::finetune
