#include "apps/scrna_train/finetune_page.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "lib/core/progress.h"
#include "lib/report/square_matrix.h"
#include "lib/report/svg.h"

namespace scrna::app {
namespace {

using finetune::ClassificationReport;
using report::Svg;

/// Rows: what cells are; columns: what is said, in the same order; colour: part of the row.
Svg confusion_matrix(const ClassificationReport& report) {
  const std::size_t count = report.classes.size();
  report::SquareMatrix matrix{.title = {}, .note = "rows: label, columns: prediction, in the same order", .names = {}, .cells = {}};
  matrix.cells.assign(count, std::vector<std::optional<report::MatrixCell>>(count));
  for (std::size_t row = 0; row < count; ++row) {
    const auto& scores = report.classes[row];
    matrix.names.push_back(scores.name);
    for (std::size_t column = 0; column < count; ++column) {
      const int64_t cells = report.count(row, column);
      const double part = scores.cells > 0 ? static_cast<double>(cells) / static_cast<double>(scores.cells) : 0;
      matrix.cells[row][column] = {.part = part,
                                   .text = cells > 0 ? std::to_string(cells) : "",
                                   .tooltip = fmt::format("{} cells of {} are said to be {} ({:.1f} %)", cells, scores.name,
                                                          report.classes[column].name, 100 * part)};
    }
  }
  return draw(matrix);
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
