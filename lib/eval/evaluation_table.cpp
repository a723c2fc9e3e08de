// The table of evaluation_files.h that people read in a terminal.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "lib/core/progress.h"
#include "lib/eval/evaluation_files.h"
#include "lib/eval/seed_groups.h"

namespace scrna::eval {
namespace {

constexpr double kShownResolution = 1;  // of the number of clusters where there are no labels to choose it by

std::string cell(const std::string& text, std::size_t width) { return fmt::format("  {:>{}}", text, width); }

std::string four_digits(double value) { return std::isfinite(value) ? fmt::format("{:.4f}", value) : "-"; }

/// Lines that begin with what they are, all equally wide.
std::size_t first_width() {
  std::size_t width = 0;
  for (const MetricRow& row : grouped_rows()) width = std::max(width, row.what.size());
  return width;
}

std::string clusters_text(const Evaluation& evaluation, bool has_labels) {
  if (has_labels) return std::to_string(evaluation.best.clusters);
  const auto point = std::find_if(evaluation.leiden.begin(), evaluation.leiden.end(),
                                  [](const LeidenPoint& p) { return std::abs(p.resolution - kShownResolution) < 1e-9; });
  return point == evaluation.leiden.end() ? "-" : std::to_string(point->clusters);
}

/// Masked loss, its interval, and guessing; nothing without models.
template <class Line>
void add_losses(const DataSetReport& report, const Line& line) {
  const auto model = std::find_if(report.evaluations.begin(), report.evaluations.end(),
                                  [](const Evaluation& evaluation) { return evaluation.loss.has_value(); });
  if (model == report.evaluations.end()) return;
  const auto row = [&](const std::string& what, double MaskedLoss::*member) {
    line(what, [&](const Evaluation& evaluation) { return evaluation.loss ? four_digits((*evaluation.loss).*member) : std::string("-"); });
  };
  row(fmt::format("masked loss, {} maskings", model->loss->maskings), &MaskedLoss::mean);
  row("  +-", &MaskedLoss::half_width);
  row("  by how common genes are", &MaskedLoss::gene_frequency);
  row("  every gene equally likely", &MaskedLoss::uniform);
}

std::string notes(const DataSetReport& report, const EvaluationOptions& options) {
  const bool has_losses = std::any_of(report.evaluations.begin(), report.evaluations.end(),
                                      [](const Evaluation& evaluation) { return evaluation.loss.has_value(); });
  std::string out = fmt::format("\nLarger is better in every row above the {}. Baseline: {}.\n",
                                has_losses ? "loss (nats per masked gene, 95 % interval over cells)" : "dimensions", report.baseline);
  if (!report.has_labels())
    out += "No label column: what labels are needed for (silhouettes, NMI, ARI, accuracies, MMD, graph connectivity) was not "
           "measured.\n";
  int64_t most = 0;
  for (const int64_t size : report.cells.labels.sizes()) most = std::max(most, size);
  if (report.has_labels() && most > options.separation.max_label_cells)
    out += fmt::format("MMD: labels of more than {} cells were sampled to as many (--mmd-cells).\n",
                       grouped(options.separation.max_label_cells));
  return out;
}

std::string groups_table(const DataSetReport& report) {
  const std::vector<SeedGroup> groups = seed_groups(report.evaluations);
  if (groups.empty()) return {};
  std::string out = fmt::format("\n{:<{}}", "mean +- standard deviation over runs", first_width());
  std::vector<std::size_t> widths;
  for (const SeedGroup& group : groups) {
    const std::string title = fmt::format("{} (n = {})", group.name, group.members.size());
    widths.push_back(std::max<std::size_t>(16, title.size()));
    out += cell(title, widths.back());
  }
  out += "\n";
  for (const MetricRow& row : grouped_rows()) {
    std::string line = fmt::format("{:<{}}", row.what, first_width());
    bool has_numbers = false;
    for (std::size_t i = 0; i < groups.size(); ++i) {
      const MeanDeviation value = groups[i].over(row.value);
      has_numbers |= value.runs > 0;
      line += cell(value.runs == 0 ? "-" : fmt::format("{:.4f} +- {}", value.mean, four_digits(value.deviation)), widths[i]);
    }
    if (has_numbers) out += line + "\n";
  }
  return out;
}

std::string data_set_table(const DataSetReport& report, const EvaluationOptions& options) {
  std::string out = fmt::format("{}: {}\n\n", report.file, cells_words(report));
  const auto line = [&](const std::string& what, const auto& text_of) {
    out += fmt::format("{:<{}}", what, first_width());
    for (const Evaluation& evaluation : report.evaluations)
      out += cell(text_of(evaluation), std::max<std::size_t>(6, evaluation.name.size()));
    out += "\n";
  };
  line("", [](const Evaluation& evaluation) { return evaluation.name; });
  for (const MetricRow& row : metric_rows()) {
    if (std::none_of(report.evaluations.begin(), report.evaluations.end(),
                     [&](const Evaluation& evaluation) { return std::isfinite(row.value(evaluation)); }))
      continue;
    line(row.what, [&](const Evaluation& evaluation) { return four_digits(row.value(evaluation)); });
  }
  add_losses(report, line);
  line("dimensions", [](const Evaluation& evaluation) { return std::to_string(evaluation.width); });
  line(fmt::format("components to {:.0f} % of the variance", 100 * options.pca_variance),
       [](const Evaluation& evaluation) { return std::to_string(evaluation.components); });
  line(report.has_labels() ? "clusters at the best NMI" : fmt::format("Leiden clusters at resolution {:.1f}", kShownResolution),
       [&](const Evaluation& evaluation) { return clusters_text(evaluation, report.has_labels()); });
  return out + groups_table(report) + notes(report, options);
}

}  // namespace

std::string cells_words(const DataSetReport& data_set) {
  const LabelledCells& cells = data_set.cells;
  return fmt::format("{} of {} cells, {}{}", grouped(static_cast<int64_t>(cells.cells.size())), grouped(cells.file_cells),
                     data_set.has_labels() ? fmt::format("{} labels of '{}'", cells.labels.count(), data_set.choice.label)
                                           : "no label column",
                     cells.batches ? fmt::format(", {} batches of '{}'", cells.batches->count(), data_set.choice.batch) : "");
}

std::string evaluation_table(const EvaluationReport& report) {
  std::string out;
  for (const DataSetReport& data_set : report.data_sets)
    out += (out.empty() ? "" : "\n\n") + data_set_table(data_set, report.options);
  return out;
}

}  // namespace scrna::eval
