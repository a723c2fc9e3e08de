#include "apps/scrna_train/evaluate_page.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "lib/core/progress.h"
#include "lib/report/heat_map.h"
#include "lib/report/line_chart.h"
#include "lib/report/svg.h"

namespace scrna::app {
namespace {

using report::Svg;

constexpr int64_t kDrawnCells = 4000;  // of a picture; a page of 100,000 dots opens slowly and shows no more
constexpr double kPicture = 440, kMargin = 12, kTop = 26;

report::Table metrics_table(const eval::EvaluationReport& report) {
  report::Table table;
  table.head.push_back("");
  for (const eval::Evaluation& evaluation : report.evaluations) table.head.push_back(evaluation.name);
  const auto add = [&](const std::string& what, const auto& value_of, bool larger_is_better) {
    std::vector<report::Table::Cell> row{{what, ""}};
    double best = std::nan("");
    for (const eval::Evaluation& evaluation : report.evaluations) {
      const double value = value_of(evaluation);
      if (std::isfinite(value) && !(larger_is_better ? value <= best : value >= best)) best = value;
    }
    if (!std::isfinite(best)) return;
    for (const eval::Evaluation& evaluation : report.evaluations) {
      const double value = value_of(evaluation);
      row.push_back(std::isfinite(value) ? report::Table::Cell{fmt::format("{:.4f}", value), value == best ? "good" : ""}
                                         : report::Table::Cell{"-", "muted"});
    }
    table.rows.push_back(std::move(row));
  };
  for (const eval::MetricRow& metric : eval::metric_rows()) add(metric.what, metric.value, true);
  add("masked loss, nats", [](const eval::Evaluation& e) { return e.loss ? e.loss->mean : std::nan(""); }, false);
  return table;
}

/// Cells as dots in the colour of their label, each label named where half of its cells are to the left and half above.
Svg picture(const eval::CellMatrix& places, const eval::Labels& labels, const std::string& title) {
  Svg svg(kPicture, kPicture + kTop);
  svg.text(0, 14, title, "title");
  double low[2] = {1e300, 1e300}, high[2] = {-1e300, -1e300};
  for (int64_t i = 0; i < places.cells; ++i) {
    for (int d = 0; d < 2; ++d) {
      low[d] = std::min(low[d], places.row(i)[d]);
      high[d] = std::max(high[d], places.row(i)[d]);
    }
  }
  const double scale = (kPicture - 2 * kMargin) / std::max({high[0] - low[0], high[1] - low[1], 1e-9});
  const auto x = [&](double value) { return kMargin + (value - low[0]) * scale; };
  const auto y = [&](double value) { return kTop + kMargin + (high[1] - value) * scale; };
  const int64_t drawn = std::min(places.cells, kDrawnCells);
  for (int64_t k = 0; k < drawn; ++k) {
    const int64_t i = k * places.cells / drawn;
    svg.dot(x(places.row(i)[0]), y(places.row(i)[1]), 1.4, fmt::format("s{}", labels.codes[i] % report::kNumColours));
  }
  for (int32_t label = 0; label < labels.count(); ++label) {
    std::vector<double> middle[2];
    for (int64_t i = 0; i < places.cells; ++i)
      if (labels.codes[i] == label)
        for (int d = 0; d < 2; ++d) middle[d].push_back(places.row(i)[d]);
    for (std::vector<double>& values : middle)
      std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
    svg.text(x(middle[0][middle[0].size() / 2]), y(middle[1][middle[1].size() / 2]), labels.names[label], "ink", Svg::Anchor::kMiddle);
  }
  return svg;
}

/// Parts of the colour scale above it are too bright for white text.
constexpr double kBright = 0.55;

/// MMD of every pair of labels, one scale for all embeddings.
Svg mmd_matrix(const eval::Evaluation& evaluation, const eval::Labels& labels, double largest) {
  const int32_t count = labels.count();
  std::size_t longest = 0;
  for (const std::string& name : labels.names) longest = std::max(longest, name.size());
  const double left = std::min(200.0, 6.6 * static_cast<double>(longest) + 8), cell = std::clamp(420.0 / count, 16.0, 46.0);
  Svg svg(left + cell * count + 8, kTop + cell * count + 8);
  svg.text(0, 14, evaluation.name, "title");
  for (int32_t label = 0; label < count; ++label)
    svg.text(left - 6, kTop + cell * (label + 0.5) + 4, labels.names[label], "muted small", Svg::Anchor::kEnd);
  for (const eval::PairSeparation& pair : evaluation.separation) {
    const double part = largest > 0 ? pair.mmd / largest : 0;
    const std::string tooltip =
        fmt::format("{} and {}: {:.3f}, 95 % of resamples {:.3f} to {:.3f}", labels.names[pair.first], labels.names[pair.second],
                    pair.mmd, pair.mmd_low, pair.mmd_high);
    for (const auto& [row, column] : {std::pair{pair.first, pair.second}, std::pair{pair.second, pair.first}}) {
      svg.rectangle(left + cell * column, kTop + cell * row, cell - 1, cell - 1, "cell", report::heat_colour(part), tooltip);
      if (cell >= 30)
        svg.text(left + cell * (column + 0.5), kTop + cell * (row + 0.5) + 4, fmt::format("{:.2f}", pair.mmd),
                 part > kBright ? "inside bright small" : "inside small",
                 Svg::Anchor::kMiddle);
    }
  }
  return svg;
}

report::Figure leiden_figure(const eval::EvaluationReport& report) {
  report::LineChart chart;
  chart.title = "Leiden clusters: NMI with the labels";
  chart.x_label = "resolution";
  for (std::size_t i = 0; i < report.evaluations.size(); ++i) {
    report::Series series;
    series.label = report.evaluations[i].name;
    series.colour = static_cast<int>(i);
    series.has_dots = true;
    for (const eval::LeidenPoint& point : report.evaluations[i].leiden) {
      series.x.push_back(point.resolution);
      series.y.push_back(point.nmi);
    }
    chart.series.push_back(std::move(series));
  }
  return {"leiden", "scIB reports the best of these.", draw(chart)};
}

std::string cells_words(const eval::EvaluationReport& report) {
  const eval::LabelledCells& cells = report.cells;
  return fmt::format("{} of {} cells, {} labels of '{}'{}", grouped(static_cast<int64_t>(cells.cells.size())), grouped(cells.file_cells),
                     cells.labels.count(), report.choice.label,
                     cells.batches ? fmt::format(", {} batches of '{}'", cells.batches->count(), report.choice.batch) : "");
}

}  // namespace

report::Page evaluation_page(const eval::EvaluationReport& report) {
  report::Page page("Embeddings of " + report.file, cells_words(report) + "; scrna-train " + report.program);
  page.paragraph("Larger is better in every row but the loss; the best is in green. Baseline: " + report.baseline + ".");
  page.table(metrics_table(report));
  page.figures({leiden_figure(report)});
  const eval::LabelledCells& cells = report.cells;
  std::vector<report::Figure> pictures, matrices;
  double largest = 0;
  for (const eval::Evaluation& evaluation : report.evaluations)
    for (const eval::PairSeparation& pair : evaluation.separation) largest = std::max(largest, pair.mmd);
  const std::string drawn = cells.labels.cells() > kDrawnCells
                                ? fmt::format("{} of {} cells are drawn. ", grouped(kDrawnCells), grouped(cells.labels.cells()))
                                : "";
  for (std::size_t i = 0; i < report.evaluations.size(); ++i) {
    const eval::Evaluation& evaluation = report.evaluations[i];
    if (evaluation.umap.cells > 0) {
      pictures.push_back({fmt::format("umap-{}-label", i), drawn + "UMAP by label.",
                          picture(evaluation.umap, cells.labels, evaluation.name + ": " + report.choice.label)});
      if (cells.batches)
        pictures.push_back({fmt::format("umap-{}-batch", i), drawn + "UMAP by batch.",
                            picture(evaluation.umap, *cells.batches, evaluation.name + ": " + report.choice.batch)});
    }
    matrices.push_back({fmt::format("mmd-{}", i), "MMD of each pair of labels.", mmd_matrix(evaluation, cells.labels, largest)});
  }
  page.heading("UMAP");
  page.figures(std::move(pictures));
  page.heading("Separation of labels");
  page.paragraph("Maximum mean discrepancy, RBF kernel, bandwidth the median distance of the pair's cells. Bright is far apart; one "
                 "scale for all. Intervals are in the tooltips and in mmd.csv.");
  page.figures(std::move(matrices));
  return page;
}

}  // namespace scrna::app
