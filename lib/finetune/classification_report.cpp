#include "lib/finetune/classification_report.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/core/csv.h"
#include "lib/core/error.h"
#include "lib/core/progress.h"

namespace scrna::finetune {
namespace {

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }

/// Columns that a text takes on a terminal: its characters, not its bytes.
std::size_t columns_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

std::string padded(const std::string& text, std::size_t width) {
  return text + std::string(width - std::min(width, columns_of(text)), ' ');
}

}  // namespace

ClassificationReport classification_report(std::span<const int32_t> truth, std::span<const int32_t> predicted,
                                           const std::vector<std::string>& names) {
  SCRNA_CHECK(truth.size() == predicted.size(), "{} cells, {} predictions", truth.size(), predicted.size());
  const std::size_t count = names.size();
  ClassificationReport report;
  report.cells = std::ssize(truth);
  report.confusion.resize(count * count);
  report.classes.resize(count);
  int64_t right = 0;
  for (std::size_t cell = 0; cell < truth.size(); ++cell) {
    const auto is = static_cast<std::size_t>(truth[cell]), said = static_cast<std::size_t>(predicted[cell]);
    SCRNA_CHECK(is < count && said < count, "class {} or {} of {}", truth[cell], predicted[cell], count);
    ++report.confusion[is * count + said];
    ++report.classes[is].cells;
    ++report.classes[said].predicted;
    right += is == said ? 1 : 0;
  }
  const auto cells = static_cast<double>(report.cells);
  int64_t most = 0, counted = 0;
  for (std::size_t i = 0; i < count; ++i) {
    ClassScores& scores = report.classes[i];
    const auto both = static_cast<double>(report.count(i, i));
    scores.name = names[i];
    scores.precision = ratio(both, static_cast<double>(scores.predicted));
    scores.recall = ratio(both, static_cast<double>(scores.cells));
    scores.f1 = ratio(2 * both, static_cast<double>(scores.predicted + scores.cells));
    most = std::max(most, scores.cells);
    if (scores.cells + scores.predicted == 0) continue;
    ++counted;
    report.macro_f1 += scores.f1;
    report.weighted_f1 += scores.f1 * static_cast<double>(scores.cells);
  }
  report.accuracy = ratio(static_cast<double>(right), cells);
  report.macro_f1 = ratio(report.macro_f1, static_cast<double>(counted));
  report.weighted_f1 = ratio(report.weighted_f1, cells);
  report.majority_accuracy = ratio(static_cast<double>(most), cells);
  return report;
}

std::string per_class_csv(const ClassificationReport& report) {
  std::string text = "class,cells,predicted,precision,recall,f1\n";
  for (const ClassScores& scores : report.classes)
    text += fmt::format("{},{},{},{:.9g},{:.9g},{:.9g}\n", csv_field(scores.name), scores.cells,
                        scores.predicted, scores.precision, scores.recall, scores.f1);
  return text;
}

std::string confusion_csv(const ClassificationReport& report) {
  std::string text;
  for (const ClassScores& scores : report.classes) text.append(",").append(csv_field(scores.name));
  text += "\n";
  for (std::size_t i = 0; i < report.classes.size(); ++i) {
    text += csv_field(report.classes[i].name);
    for (std::size_t j = 0; j < report.classes.size(); ++j) text += fmt::format(",{}", report.count(i, j));
    text += "\n";
  }
  return text;
}

std::string per_class_table(const ClassificationReport& report, std::size_t most_lines) {
  std::vector<const ClassScores*> order;
  std::size_t width = 5;
  for (const ClassScores& scores : report.classes) {
    order.push_back(&scores);
    width = std::max(width, columns_of(scores.name));
  }
  std::ranges::stable_sort(order, [](const auto* a, const auto* b) { return a->cells > b->cells; });
  std::string text = fmt::format("  {}     cells  precision  recall      F1\n", padded("class", width));
  for (std::size_t i = 0; i < std::min(most_lines, order.size()); ++i)
    text += fmt::format("  {}  {:>8}     {:.4f}  {:.4f}  {:.4f}\n", padded(order[i]->name, width),
                        grouped(order[i]->cells), order[i]->precision, order[i]->recall, order[i]->f1);
  if (order.size() > most_lines)
    text += fmt::format("  {} rarer classes: see per_class.csv\n", order.size() - most_lines);
  return text;
}

}  // namespace scrna::finetune
