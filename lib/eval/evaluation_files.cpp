#include "lib/eval/evaluation_files.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/progress.h"

namespace scrna::eval {
namespace {

using nlohmann::ordered_json;

/// A field of a CSV file, in quotes where it must be (RFC 4180).
std::string field(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == std::string::npos) return text;
  std::string out(1, '"');
  for (const char c : text) out.append(c == '"' ? 2 : 1, c);
  out.push_back('"');
  return out;
}

std::string number(double value) { return std::isfinite(value) ? fmt::format("{:.9g}", value) : ""; }

ordered_json json_number(double value) { return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr); }

std::string cell(const std::string& text, std::size_t width) { return fmt::format("  {:>{}}", text, width); }

ordered_json choice_json(const EvaluationReport& report) {
  const LabelledCells& cells = report.cells;
  ordered_json out = {{"label", report.choice.label},
                      {"batch", report.choice.batch.empty() ? ordered_json(nullptr) : ordered_json(report.choice.batch)},
                      {"cells", cells.cells.size()},
                      {"cells_of_file", cells.file_cells},
                      {"left_out", {{"without_label", cells.unlabelled}, {"excluded_labels", cells.excluded},
                                    {"rare_labels", cells.rare_cells}, {"without_batch", cells.without_batch},
                                    {"without_embedding", cells.without_embedding},
                                    {"not_sampled", cells.not_sampled}}},
                      {"excluded_labels", report.choice.excluded_labels},
                      {"rare_labels", cells.rare_labels}};
  const std::vector<int64_t> sizes = cells.labels.sizes();
  for (std::size_t i = 0; i < sizes.size(); ++i) out["labels"][cells.labels.names[i]] = sizes[i];
  if (cells.batches) {
    const std::vector<int64_t> batch_sizes = cells.batches->sizes();
    for (std::size_t i = 0; i < batch_sizes.size(); ++i) out["batches"][cells.batches->names[i]] = batch_sizes[i];
  }
  return out;
}

ordered_json settings_json(const EvaluationReport& report) {
  const EvaluationOptions& options = report.options;
  return {{"seed", options.seed},
          {"pca_variance", options.pca_variance},
          {"neighbours", options.num_neighbours},
          {"lisi_neighbours", options.num_lisi_neighbours},
          {"folds", options.num_folds},
          {"resolutions", options.resolutions},
          {"umap_min_dist", options.umap_min_dist},
          {"mmd_resamples", options.separation.num_resamples},
          {"mmd_cells_per_label", options.separation.max_label_cells},
          {"min_label_cells", report.choice.min_label_cells},
          {"max_cells", report.choice.max_cells}};
}

ordered_json pair_json(const PairSeparation& pair, const Labels& labels) {
  return {{"first", labels.names[pair.first]}, {"second", labels.names[pair.second]},
          {"first_cells", pair.first_cells},   {"second_cells", pair.second_cells},
          {"bandwidth", pair.bandwidth},       {"mmd_squared", pair.mmd_squared},
          {"mmd", pair.mmd},                   {"mmd_low", pair.mmd_low},
          {"mmd_high", pair.mmd_high},         {"mmd_deviation", pair.mmd_deviation}};
}

ordered_json result_json(const Evaluation& evaluation, const Labels& labels) {
  ordered_json out = {{"name", evaluation.name}, {"width", evaluation.width}, {"components", evaluation.components}};
  for (const MetricRow& row : metric_rows()) out["metrics"][row.name] = json_number(row.value(evaluation));
  out["metrics"]["silhouette_unscaled"] = evaluation.silhouette;
  out["masked_loss"] = nullptr;
  if (evaluation.loss)
    out["masked_loss"] = {{"mean", evaluation.loss->mean},         {"half_width_95", evaluation.loss->half_width},
                          {"uniform", evaluation.loss->uniform},   {"cells", evaluation.loss->cells},
                          {"maskings", evaluation.loss->maskings}};
  out["best_resolution"] = evaluation.best.resolution;
  for (const LeidenPoint& point : evaluation.leiden)
    out["leiden"].push_back({{"resolution", point.resolution}, {"clusters", point.clusters}, {"nmi", point.nmi}, {"ari", point.ari}});
  out["isolated_labels"] = evaluation.batch ? ordered_json(evaluation.batch->isolated_labels) : ordered_json(nullptr);
  for (const PairSeparation& pair : evaluation.separation) out["mmd"].push_back(pair_json(pair, labels));
  for (const auto& [part, seconds] : evaluation.seconds) out["seconds"][part] = seconds;
  return out;
}

bool has_losses(const EvaluationReport& report) {
  return std::any_of(report.evaluations.begin(), report.evaluations.end(),
                     [](const Evaluation& evaluation) { return evaluation.loss.has_value(); });
}

/// Masked loss, its interval, and guessing; nothing without models.
template <class Line>
void add_losses(const EvaluationReport& report, const Line& line) {
  if (!has_losses(report)) return;
  const auto row = [&](const std::string& what, const auto& text_of) {
    line(what, [&](const Evaluation& evaluation) { return evaluation.loss ? text_of(*evaluation.loss) : std::string("-"); });
  };
  const auto model = std::find_if(report.evaluations.begin(), report.evaluations.end(),
                                  [](const Evaluation& evaluation) { return evaluation.loss.has_value(); });
  row(fmt::format("masked loss, {} maskings", model->loss->maskings),
      [](const MaskedLoss& loss) { return fmt::format("{:.4f}", loss.mean); });
  row("  +-", [](const MaskedLoss& loss) { return fmt::format("{:.4f}", loss.half_width); });
  row("  every gene equally likely", [](const MaskedLoss& loss) { return fmt::format("{:.4f}", loss.uniform); });
}

}  // namespace

std::string evaluation_table(const EvaluationReport& report) {
  const LabelledCells& cells = report.cells;
  std::string out = fmt::format("{}: {} of {} cells, {} labels of '{}'{}\n\n", report.file,
                                grouped(static_cast<int64_t>(cells.cells.size())), grouped(cells.file_cells),
                                cells.labels.count(), report.choice.label,
                                cells.batches ? fmt::format(", {} batches of '{}'", cells.batches->count(), report.choice.batch) : "");
  std::size_t first_width = 0;
  for (const MetricRow& row : metric_rows()) first_width = std::max(first_width, row.what.size());
  const auto line = [&](const std::string& what, const auto& text_of) {
    out += fmt::format("{:<{}}", what, first_width);
    for (const Evaluation& evaluation : report.evaluations)
      out += cell(text_of(evaluation), std::max<std::size_t>(6, evaluation.name.size()));
    out += "\n";
  };
  line("", [](const Evaluation& evaluation) { return evaluation.name; });
  for (const MetricRow& row : metric_rows()) {
    if (std::none_of(report.evaluations.begin(), report.evaluations.end(),
                     [&](const Evaluation& evaluation) { return std::isfinite(row.value(evaluation)); }))
      continue;
    line(row.what, [&](const Evaluation& evaluation) {
      const double value = row.value(evaluation);
      return std::isfinite(value) ? fmt::format("{:.4f}", value) : std::string("-");
    });
  }
  add_losses(report, line);
  line("dimensions", [](const Evaluation& evaluation) { return std::to_string(evaluation.width); });
  line(fmt::format("components to {:.0f} % of the variance", 100 * report.options.pca_variance),
       [](const Evaluation& evaluation) { return std::to_string(evaluation.components); });
  line("clusters at the best NMI", [](const Evaluation& evaluation) { return std::to_string(evaluation.best.clusters); });
  out += fmt::format("\nLarger is better in every row above the {}. Baseline: {}.\n",
                     has_losses(report) ? "loss (nats per masked gene, 95 % interval over cells)" : "dimensions", report.baseline);
  int64_t most = 0;
  for (const int64_t size : cells.labels.sizes()) most = std::max(most, size);
  if (most > report.options.separation.max_label_cells)
    out += fmt::format("MMD: labels of more than {} cells were sampled to as many (--mmd-cells).\n",
                       grouped(report.options.separation.max_label_cells));
  return out;
}

std::string evaluation_json(const EvaluationReport& report) {
  ordered_json out = {{"file", report.file}, {"program", report.program}, {"baseline", report.baseline}};
  out["cells"] = choice_json(report);
  out["settings"] = settings_json(report);
  for (const Evaluation& evaluation : report.evaluations)
    out["embeddings"].push_back(result_json(evaluation, report.cells.labels));
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

std::string metrics_csv(const EvaluationReport& report) {
  std::string out = "embedding,metric,value\n";
  for (const Evaluation& evaluation : report.evaluations)
    for (const MetricRow& row : metric_rows())
      out += fmt::format("{},{},{}\n", field(evaluation.name), row.name, number(row.value(evaluation)));
  for (const Evaluation& evaluation : report.evaluations)
    if (evaluation.loss)
      out += fmt::format("{0},masked_loss,{1}\n{0},masked_loss_half_width,{2}\n", field(evaluation.name),
                         number(evaluation.loss->mean), number(evaluation.loss->half_width));
  return out;
}

std::string leiden_csv(const EvaluationReport& report) {
  std::string out = "embedding,resolution,clusters,nmi,ari\n";
  for (const Evaluation& evaluation : report.evaluations)
    for (const LeidenPoint& point : evaluation.leiden)
      out += fmt::format("{},{},{},{},{}\n", field(evaluation.name), number(point.resolution), point.clusters,
                         number(point.nmi), number(point.ari));
  return out;
}

std::string mmd_csv(const EvaluationReport& report) {
  std::string out = "embedding,first,second,first_cells,second_cells,bandwidth,mmd_squared,mmd,mmd_low,mmd_high,mmd_deviation\n";
  for (const Evaluation& evaluation : report.evaluations)
    for (const PairSeparation& pair : evaluation.separation)
      out += fmt::format("{},{},{},{},{},{},{},{},{},{},{}\n", field(evaluation.name), field(report.cells.labels.names[pair.first]),
                         field(report.cells.labels.names[pair.second]), pair.first_cells, pair.second_cells,
                         number(pair.bandwidth), number(pair.mmd_squared), number(pair.mmd), number(pair.mmd_low),
                         number(pair.mmd_high), number(pair.mmd_deviation));
  return out;
}

std::string umap_csv(const EvaluationReport& report) {
  std::string out = "cell,label,batch";
  for (const Evaluation& evaluation : report.evaluations) 
    out += fmt::format(",{},{}", field(evaluation.name + " x"), field(evaluation.name + " y"));
  out += "\n";
  const LabelledCells& cells = report.cells;
  for (int64_t i = 0; i < cells.labels.cells(); ++i) {
    out += fmt::format("{},{},{}", field(report.cell_names[i]), field(cells.labels.names[cells.labels.codes[i]]),
                       cells.batches ? field(cells.batches->names[cells.batches->codes[i]]) : "");
    for (const Evaluation& evaluation : report.evaluations)
      out += fmt::format(",{:.5g},{:.5g}", evaluation.umap.row(i)[0], evaluation.umap.row(i)[1]);
    out += "\n";
  }
  return out;
}

void write_evaluation(const std::filesystem::path& folder, const EvaluationReport& report) {
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  if (problem) throw DataError("cannot make the folder {}: {}", folder.string(), problem.message());
  write_file_atomically(folder / "evaluation.json", evaluation_json(report));
  write_file_atomically(folder / "metrics.csv", metrics_csv(report));
  write_file_atomically(folder / "leiden.csv", leiden_csv(report));
  write_file_atomically(folder / "mmd.csv", mmd_csv(report));
  if (report.options.with_umap) write_file_atomically(folder / "umap.csv", umap_csv(report));
}

}  // namespace scrna::eval
