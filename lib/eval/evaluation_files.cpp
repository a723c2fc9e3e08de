#include "lib/eval/evaluation_files.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "lib/core/csv.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/eval/seed_groups.h"

namespace scrna::eval {
namespace {

using nlohmann::ordered_json;

std::string number(double value) { return std::isfinite(value) ? fmt::format("{:.9g}", value) : ""; }

ordered_json json_number(double value) { return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr); }

ordered_json text_or_null(const std::string& text) { return text.empty() ? ordered_json(nullptr) : ordered_json(text); }

ordered_json choice_json(const DataSetReport& report) {
  const LabelledCells& cells = report.cells;
  ordered_json out = {{"label", text_or_null(report.choice.label)},
                      {"batch", text_or_null(report.choice.batch)},
                      {"cells", cells.cells.size()},
                      {"cells_of_file", cells.file_cells},
                      {"left_out", {{"without_label", cells.unlabelled}, {"excluded_labels", cells.excluded},
                                    {"rare_labels", cells.rare_cells}, {"without_batch", cells.without_batch},
                                    {"without_embedding", cells.without_embedding},
                                    {"not_sampled", cells.not_sampled}}},
                      {"min_label_cells", report.choice.min_label_cells},
                      {"max_cells", report.choice.max_cells},
                      {"excluded_labels", report.choice.excluded_labels},
                      {"rare_labels", cells.rare_labels}};
  const std::vector<int64_t> sizes = cells.labels.sizes();
  out["labels"] = ordered_json::object();
  for (std::size_t i = 0; report.has_labels() && i < sizes.size(); ++i) out["labels"][cells.labels.names[i]] = sizes[i];
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
          {"mmd_cells_per_label", options.separation.max_label_cells}};
}

ordered_json pair_json(const PairSeparation& pair, const Labels& labels) {
  return {{"first", labels.names[pair.first]}, {"second", labels.names[pair.second]},
          {"first_cells", pair.first_cells},   {"second_cells", pair.second_cells},
          {"bandwidth", pair.bandwidth},       {"mmd_squared", pair.mmd_squared},
          {"mmd", pair.mmd},                   {"mmd_low", pair.mmd_low},
          {"mmd_high", pair.mmd_high},         {"mmd_deviation", pair.mmd_deviation}};
}

ordered_json result_json(const Evaluation& evaluation, const Labels& labels) {
  ordered_json out = {{"name", evaluation.name}, {"group", text_or_null(evaluation.group)}, {"width", evaluation.width}, {"components", evaluation.components}};
  for (const MetricRow& row : metric_rows()) out["metrics"][row.name] = json_number(row.value(evaluation));
  out["metrics"]["silhouette_unscaled"] = json_number(evaluation.silhouette);
  out["masked_loss"] = nullptr;
  if (evaluation.loss)
    out["masked_loss"] = {{"mean", evaluation.loss->mean},         {"half_width_95", evaluation.loss->half_width},
                          {"uniform", evaluation.loss->uniform},   {"gene_frequency", evaluation.loss->gene_frequency},
                          {"cells", evaluation.loss->cells},
                          {"maskings", evaluation.loss->maskings}};
  out["best_resolution"] = json_number(evaluation.best.resolution);
  for (const LeidenPoint& point : evaluation.leiden)
    out["leiden"].push_back({{"resolution", point.resolution}, {"clusters", point.clusters},
                             {"nmi", json_number(point.nmi)}, {"ari", json_number(point.ari)}});
  out["isolated_labels"] = evaluation.batch ? ordered_json(evaluation.batch->isolated_labels) : ordered_json(nullptr);
  out["mmd"] = ordered_json::array();
  for (const PairSeparation& pair : evaluation.separation) out["mmd"].push_back(pair_json(pair, labels));
  for (const auto& [part, seconds] : evaluation.seconds) out["seconds"][part] = seconds;
  return out;
}

ordered_json group_json(const SeedGroup& group) {
  ordered_json out = {{"group", group.name}};
  for (const Evaluation* member : group.members) out["members"].push_back(member->name);
  for (const MetricRow& row : grouped_rows()) {
    const MeanDeviation value = group.over(row.value);
    out["metrics"][row.name] = {{"runs", value.runs}, {"mean", json_number(value.mean)}, {"deviation", json_number(value.deviation)}};
  }
  return out;
}

ordered_json data_set_json(const DataSetReport& report) {
  ordered_json out = {{"name", report.name}, {"file", report.file}, {"baseline", report.baseline}};
  out["cells"] = choice_json(report);
  for (const Evaluation& evaluation : report.evaluations)
    out["embeddings"].push_back(result_json(evaluation, report.cells.labels));
  out["groups"] = ordered_json::array();
  for (const SeedGroup& group : seed_groups(report.evaluations)) out["groups"].push_back(group_json(group));
  return out;
}

/// Calls line(data set, evaluation) for all.
template <class Line>
void for_each_evaluation(const EvaluationReport& report, const Line& line) {
  for (const DataSetReport& data_set : report.data_sets)
    for (const Evaluation& evaluation : data_set.evaluations) line(data_set, evaluation);
}

/// Names of embeddings over all data sets, in the order in which they first occur.
std::vector<std::string> embedding_names(const EvaluationReport& report) {
  std::vector<std::string> names;
  for_each_evaluation(report, [&](const DataSetReport&, const Evaluation& evaluation) {
    if (std::find(names.begin(), names.end(), evaluation.name) == names.end()) names.push_back(evaluation.name);
  });
  return names;
}

}  // namespace

std::string evaluation_json(const EvaluationReport& report) {
  ordered_json out = {{"program", report.program}, {"settings", settings_json(report)}};
  out["models"] = ordered_json::array();
  for (const ReportedModel& model : report.models)
    out["models"].push_back({{"name", model.name}, {"group", text_or_null(model.group)}, {"checkpoint", model.checkpoint}});
  for (const DataSetReport& data_set : report.data_sets) out["data_sets"].push_back(data_set_json(data_set));
  return out.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

std::string metrics_csv(const EvaluationReport& report) {
  std::string out = "data_set,embedding,group,metric,value\n";
  for_each_evaluation(report, [&](const DataSetReport& data_set, const Evaluation& evaluation) {
    const std::string start =
        fmt::format("{},{},{},", csv_field(data_set.name), csv_field(evaluation.name), csv_field(evaluation.group));
    for (const MetricRow& row : metric_rows()) out += fmt::format("{}{},{}\n", start, row.name, number(row.value(evaluation)));
    if (!evaluation.loss) return;
    out += fmt::format("{}masked_loss,{}\n", start, number(evaluation.loss->mean));
    out += fmt::format("{}masked_loss_half_width,{}\n", start, number(evaluation.loss->half_width));
    out += fmt::format("{}masked_loss_gene_frequency,{}\n", start, number(evaluation.loss->gene_frequency));
    out += fmt::format("{}masked_loss_uniform,{}\n", start, number(evaluation.loss->uniform));
  });
  return out;
}

std::string groups_csv(const EvaluationReport& report) {
  std::string out = "data_set,group,metric,runs,mean,deviation\n";
  for (const DataSetReport& data_set : report.data_sets) {
    for (const SeedGroup& group : seed_groups(data_set.evaluations)) {
      for (const MetricRow& row : grouped_rows()) {
        const MeanDeviation value = group.over(row.value);
        out += fmt::format("{},{},{},{},{},{}\n", csv_field(data_set.name), csv_field(group.name), row.name, value.runs,
                           number(value.mean), number(value.deviation));
      }
    }
  }
  return out;
}

std::string leiden_csv(const EvaluationReport& report) {
  std::string out = "data_set,embedding,resolution,clusters,nmi,ari\n";
  for_each_evaluation(report, [&](const DataSetReport& data_set, const Evaluation& evaluation) {
    for (const LeidenPoint& point : evaluation.leiden)
      out += fmt::format("{},{},{},{},{},{}\n", csv_field(data_set.name), csv_field(evaluation.name), number(point.resolution),
                         point.clusters, number(point.nmi), number(point.ari));
  });
  return out;
}

std::string mmd_csv(const EvaluationReport& report) {
  std::string out =
      "data_set,embedding,first,second,first_cells,second_cells,bandwidth,mmd_squared,mmd,mmd_low,mmd_high,mmd_deviation\n";
  for_each_evaluation(report, [&](const DataSetReport& data_set, const Evaluation& evaluation) {
    const std::vector<std::string>& names = data_set.cells.labels.names;
    for (const PairSeparation& pair : evaluation.separation)
      out += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{}\n", csv_field(data_set.name), csv_field(evaluation.name),
                         csv_field(names[pair.first]), csv_field(names[pair.second]), pair.first_cells, pair.second_cells,
                         number(pair.bandwidth), number(pair.mmd_squared), number(pair.mmd), number(pair.mmd_low),
                         number(pair.mmd_high), number(pair.mmd_deviation));
  });
  return out;
}

std::string umap_csv(const EvaluationReport& report) {
  const std::vector<std::string> names = embedding_names(report);
  std::string out = "data_set,cell,label,batch";
  for (const std::string& name : names) out += fmt::format(",{},{}", csv_field(name + " x"), csv_field(name + " y"));
  out += "\n";
  for (const DataSetReport& data_set : report.data_sets) {
    std::vector<const Evaluation*> columns;  // null: this data set does not have it
    for (const std::string& name : names) {
      const auto found = std::find_if(data_set.evaluations.begin(), data_set.evaluations.end(),
                                      [&](const Evaluation& evaluation) { return evaluation.name == name; });
      columns.push_back(found == data_set.evaluations.end() ? nullptr : &*found);
    }
    const LabelledCells& cells = data_set.cells;
    for (int64_t i = 0; i < cells.labels.cells(); ++i) {
      out += fmt::format("{},{},{},{}", csv_field(data_set.name), csv_field(data_set.cell_names[i]),
                         data_set.has_labels() ? csv_field(cells.labels.names[cells.labels.codes[i]]) : "",
                         cells.batches ? csv_field(cells.batches->names[cells.batches->codes[i]]) : "");
      for (const Evaluation* column : columns)
        out += column == nullptr ? ",," : fmt::format(",{:.5g},{:.5g}", column->umap.row(i)[0], column->umap.row(i)[1]);
      out += "\n";
    }
  }
  return out;
}

void make_results_folder(const std::filesystem::path& folder) {
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  if (problem) throw DataError("cannot make the folder {}: {}", folder.string(), problem.message());
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    throw DataError("the folder {} cannot be written to: {}", folder.string(), std::strerror(errno));
}

void write_evaluation(const std::filesystem::path& folder, const EvaluationReport& report) {
  make_results_folder(folder);
  for (const char* file : {"evaluation.json", "groups.csv", "umap.csv"}) std::filesystem::remove(folder / file);
  write_file_atomically(folder / "metrics.csv", metrics_csv(report));
  write_file_atomically(folder / "leiden.csv", leiden_csv(report));
  write_file_atomically(folder / "mmd.csv", mmd_csv(report));
  bool has_groups = false;
  for_each_evaluation(report, [&](const DataSetReport&, const Evaluation& evaluation) { has_groups |= !evaluation.group.empty(); });
  if (has_groups) write_file_atomically(folder / "groups.csv", groups_csv(report));
  if (report.options.with_umap) write_file_atomically(folder / "umap.csv", umap_csv(report));
  write_file_atomically(folder / "evaluation.json", evaluation_json(report));
}

}  // namespace scrna::eval
