#include "apps/scrna_train/evaluate_page.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "lib/core/progress.h"
#include "lib/eval/seed_groups.h"
#include "lib/report/line_chart.h"
#include "lib/report/square_matrix.h"
#include "lib/report/svg.h"

namespace scrna::app {
namespace {

using report::Svg;

constexpr int64_t kDrawnCells = 4000;  // of a picture; a page of 100,000 dots opens slowly and shows no more
constexpr double kPicture = 440, kMargin = 12, kTop = 26;

report::Table metrics_table(const eval::DataSetReport& report) {
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
  add("masked loss, nats", eval::masked_loss_of, false);
  add("  of guessing by how common genes are",
      [](const eval::Evaluation& e) { return e.loss ? e.loss->gene_frequency : std::nan(""); }, false);
  return table;
}

/// Mean and standard deviation of each group of seeds; the best mean in green.
report::Table groups_table(const std::vector<eval::SeedGroup>& groups) {
  report::Table table;
  table.head.push_back("mean ± standard deviation over runs");
  for (const eval::SeedGroup& group : groups) table.head.push_back(fmt::format("{} (n = {})", group.name, group.members.size()));
  for (const eval::MetricRow& metric : eval::grouped_rows()) {
    std::vector<eval::MeanDeviation> values;
    for (const eval::SeedGroup& group : groups) values.push_back(group.over(metric.value));
    const double sign = metric.name == "masked_loss" ? -1 : 1;
    double best = -std::numeric_limits<double>::infinity();
    for (const eval::MeanDeviation& value : values)
      if (value.runs > 0) best = std::max(best, sign * value.mean);
    if (!std::isfinite(best)) continue;
    std::vector<report::Table::Cell> row{{metric.what, ""}};
    for (const eval::MeanDeviation& value : values) {
      const std::string deviation = std::isfinite(value.deviation) ? fmt::format(" ± {:.4f}", value.deviation) : "";
      row.push_back(value.runs > 0 ? report::Table::Cell{fmt::format("{:.4f}{}", value.mean, deviation),
                                                         sign * value.mean == best ? "good" : ""}
                                   : report::Table::Cell{"-", "muted"});
    }
    table.rows.push_back(std::move(row));
  }
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
  const auto x = [&](double value) { return kPicture / 2 + (value - (low[0] + high[0]) / 2) * scale; };
  const auto y = [&](double value) { return kTop + kPicture / 2 - (value - (low[1] + high[1]) / 2) * scale; };
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
    const double at = x(middle[0][middle[0].size() / 2]), half = 3.6 * static_cast<double>(labels.names[label].size());
    const Svg::Anchor anchor = at < half               ? Svg::Anchor::kStart
                               : at > kPicture - half ? Svg::Anchor::kEnd
                                                      : Svg::Anchor::kMiddle;
    svg.text(at, y(middle[1][middle[1].size() / 2]), labels.names[label], "halo", anchor);
  }
  return svg;
}

/// MMD of every pair of labels, one scale for all embeddings.
Svg mmd_matrix(const eval::Evaluation& evaluation, const eval::Labels& labels, double largest) {
  const auto count = static_cast<std::size_t>(labels.count());
  report::SquareMatrix matrix{.title = evaluation.name, .note = {}, .names = labels.names, .cells = {}};
  matrix.cells.assign(count, std::vector<std::optional<report::MatrixCell>>(count));
  for (const eval::PairSeparation& pair : evaluation.separation) {
    const report::MatrixCell cell{
        .part = largest > 0 ? pair.mmd / largest : 0,
        .text = fmt::format("{:.2f}", pair.mmd),
        .tooltip = fmt::format("{} and {}: {:.3f}, 95 % of resamples {:.3f} to {:.3f}", labels.names[pair.first],
                               labels.names[pair.second], pair.mmd, pair.mmd_low, pair.mmd_high)};
    matrix.cells[pair.first][pair.second] = matrix.cells[pair.second][pair.first] = cell;
  }
  return draw(matrix);
}

report::Figure leiden_figure(const eval::DataSetReport& report, const std::string& prefix) {
  report::LineChart chart;
  chart.title = report.has_labels() ? "Leiden clusters: NMI with the labels" : "Leiden: number of clusters";
  chart.x_label = "resolution";
  for (std::size_t i = 0; i < report.evaluations.size(); ++i) {
    report::Series series;
    series.label = report.evaluations[i].name;
    series.colour = static_cast<int>(i);
    series.has_dots = true;
    for (const eval::LeidenPoint& point : report.evaluations[i].leiden) {
      series.x.push_back(point.resolution);
      series.y.push_back(report.has_labels() ? point.nmi : static_cast<double>(point.clusters));
    }
    chart.series.push_back(std::move(series));
  }
  return {prefix + "leiden", report.has_labels() ? "scIB reports the best of these." : "", draw(chart)};
}

std::vector<report::Figure> pictures_of(const eval::DataSetReport& report, const std::string& prefix) {
  const eval::LabelledCells& cells = report.cells;
  const std::string drawn = cells.labels.cells() > kDrawnCells
                                ? fmt::format("{} of {} cells are drawn. ", grouped(kDrawnCells), grouped(cells.labels.cells()))
                                : "";
  std::vector<report::Figure> pictures;
  for (std::size_t i = 0; i < report.evaluations.size(); ++i) {
    const eval::Evaluation& evaluation = report.evaluations[i];
    if (evaluation.umap.cells == 0) continue;
    if (report.has_labels() || !cells.batches)
      pictures.push_back({fmt::format("{}umap-{}-label", prefix, i), drawn + (report.has_labels() ? "UMAP by label." : "UMAP."),
                          picture(evaluation.umap, cells.labels,
                                  report.has_labels() ? evaluation.name + ": " + report.choice.label : evaluation.name)});
    if (cells.batches)
      pictures.push_back({fmt::format("{}umap-{}-batch", prefix, i), drawn + "UMAP by batch.",
                          picture(evaluation.umap, *cells.batches, evaluation.name + ": " + report.choice.batch)});
  }
  return pictures;
}

std::vector<report::Figure> matrices_of(const eval::DataSetReport& report, const std::string& prefix) {
  double largest = 0;
  for (const eval::Evaluation& evaluation : report.evaluations)
    for (const eval::PairSeparation& pair : evaluation.separation) largest = std::max(largest, pair.mmd);
  std::vector<report::Figure> matrices;
  for (std::size_t i = 0; i < report.evaluations.size(); ++i)
    matrices.push_back({fmt::format("{}mmd-{}", prefix, i), "MMD of each pair of labels.",
                        mmd_matrix(report.evaluations[i], report.cells.labels, largest)});
  return matrices;
}

/// `prefix`: of the names of figures, unlike all other sections'.
void add_section(report::Page& page, const eval::DataSetReport& report, const std::string& prefix, bool has_others) {
  const auto heading = [&](const std::string& words) { page.heading(has_others ? report.name + ": " + words : words); };
  if (has_others) {
    page.heading(report.name);
    page.paragraph(report.file + ": " + eval::cells_words(report) + ".");
  }
  page.paragraph("Larger is better in every row but the loss; the best is in green. Baseline: " + report.baseline + ".");
  if (!report.has_labels())
    page.paragraph("No label column: silhouettes, NMI, ARI, accuracies, MMD and graph connectivity, which need labels, were not "
                   "measured.");
  const std::vector<eval::SeedGroup> groups = eval::seed_groups(report.evaluations);
  if (!groups.empty()) page.table(groups_table(groups));
  page.table(metrics_table(report));
  page.figures({leiden_figure(report, prefix)});
  std::vector<report::Figure> pictures = pictures_of(report, prefix);
  if (!pictures.empty()) {
    heading("UMAP");
    page.figures(std::move(pictures));
  }
  if (!report.has_labels()) return;
  heading("separation of labels");
  page.paragraph("Maximum mean discrepancy, RBF kernel, bandwidth the median distance of the pair's cells. Bright is far apart; one "
                 "scale for all of this data set. Intervals are in the tooltips and in mmd.csv.");
  page.figures(matrices_of(report, prefix));
}

report::Table models_table(const std::vector<eval::ReportedModel>& models) {
  report::Table table{{"model", "group", "checkpoint"}, {}, 3};
  for (const eval::ReportedModel& model : models)
    table.rows.push_back({{model.name, ""}, {model.group.empty() ? "-" : model.group, ""}, {model.checkpoint, "muted"}});
  return table;
}

}  // namespace

report::Page evaluation_page(const eval::EvaluationReport& report) {
  const std::vector<eval::DataSetReport>& sets = report.data_sets;
  const bool has_others = sets.size() > 1;
  report::Page page(has_others ? fmt::format("Embeddings of {} data sets", sets.size()) : "Embeddings of " + sets[0].file,
                    (has_others ? "" : eval::cells_words(sets[0]) + "; ") + "scrna-train " + report.program);
  if (!report.models.empty()) page.table(models_table(report.models));
  for (std::size_t i = 0; i < sets.size(); ++i)
    add_section(page, sets[i], has_others ? fmt::format("{}-", i) : "", has_others);
  return page;
}

}  // namespace scrna::app
