#include "apps/scrna_train/finetune_page.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/core/progress.h"
#include "lib/report/heat_map.h"
#include "lib/report/svg.h"

namespace scrna::app {
namespace {

using finetune::ClassificationReport;
using report::Svg;

constexpr double kBright = 0.55;  // parts of the colour scale above it are too bright for white text
constexpr double kTop = 44;

/// Rows: what cells are; columns: what is said, in the same order; colour: part of the row.
Svg confusion_matrix(const ClassificationReport& report) {
  const std::size_t count = report.classes.size();
  std::size_t longest = 0;
  for (const auto& scores : report.classes) longest = std::max(longest, scores.name.size());
  const double left = std::min(220.0, 6.6 * static_cast<double>(longest) + 8);
  const double cell = std::clamp(460.0 / static_cast<double>(count), 14.0, 46.0);
  const double size = cell * static_cast<double>(count);
  Svg svg(left + size + 8, kTop + size + 8);
  svg.text(0, 14, "rows: label, columns: prediction, in the same order", "muted small");
  for (std::size_t column = 0; column < count; ++column)
    svg.text(left + cell * (static_cast<double>(column) + 0.5), kTop - 6, std::to_string(column + 1), "muted small",
             Svg::Anchor::kMiddle);
  for (std::size_t row = 0; row < count; ++row) {
    const auto& scores = report.classes[row];
    const double y = kTop + cell * static_cast<double>(row);
    svg.text(left - 6, y + cell / 2 + 4, fmt::format("{} {}", scores.name, row + 1), "muted small", Svg::Anchor::kEnd);
    for (std::size_t column = 0; column < count; ++column) {
      const int64_t cells = report.count(row, column);
      const double part = scores.cells > 0 ? static_cast<double>(cells) / static_cast<double>(scores.cells) : 0;
      const double x = left + cell * static_cast<double>(column);
      svg.rectangle(x, y, cell - 1, cell - 1, "cell", report::heat_colour(part),
                    fmt::format("{} cells of {} are said to be {} ({:.1f} %)", cells, scores.name,
                                report.classes[column].name, 100 * part));
      if (cell >= 26 && cells > 0)
        svg.text(x + cell / 2, y + cell / 2 + 4, std::to_string(cells),
                 part > kBright ? "inside bright small" : "inside small", Svg::Anchor::kMiddle);
    }
  }
  return svg;
}

report::Table class_table(const ClassificationReport& report) {
  report::Table table;
  table.head = {"class", "cells", "predicted", "precision", "recall", "F1"};
  for (const auto& scores : report.classes)
    table.rows.push_back({{scores.name, ""},
                          {grouped(scores.cells), ""},
                          {grouped(scores.predicted), ""},
                          {fmt::format("{:.4f}", scores.precision), ""},
                          {fmt::format("{:.4f}", scores.recall), ""},
                          {fmt::format("{:.4f}", scores.f1), ""}});
  return table;
}

}  // namespace

report::Page finetune_page(const finetune::FinetuneResult& result) {
  const ClassificationReport& scores = result.best.report;
  report::Page page("Classes of '" + result.config.label + "'",
                    fmt::format("fine-tuned from {} ({}); scrna-train {}", result.classifier.base,
                                result.config.frozen ? "the head alone" : "all weights", result.classifier.program));
  page.paragraph(fmt::format(
      "On {} held-out cells: accuracy {:.4f} (the most frequent class for all: {:.4f}), macro F1 {:.4f}, weighted F1 {:.4f}. "
      "Epoch {} of {}, the best by macro F1; {} cells to train on. The epoch was chosen on the same held-out cells.",
      grouped(scores.cells), scores.accuracy, scores.majority_accuracy, scores.macro_f1, scores.weighted_f1,
      result.best.epoch, result.epochs_done, grouped(result.training_cells)));
  page.heading("Confusion matrix");
  page.figures({{"confusion", "Colour: part of the row's cells; bright is all of them. Counts are also in confusion.csv.",
                 confusion_matrix(scores)}}, report::Page::Width::kWhole);
  page.heading("Classes");
  page.table(class_table(scores));
  page.details("Settings", result.classifier.settings);
  return page;
}

}  // namespace scrna::app
