// Results of `scrna-train evaluate` as text: a table to read, JSON with everything, and CSV files for other programs.
// A section for each data set; in it embeddings stand side by side, in the order given, and groups of seeds as mean and
// standard deviation. Numbers that do not exist are "-", null and empty.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lib/eval/evaluation.h"
#include "lib/eval/evaluation_data.h"

namespace scrna::eval {

/// What was measured on one file.
struct DataSetReport {
  std::string name;            // short and unlike all others of the report: the file's name without its end
  std::string file;            // as the user wrote it
  CellChoice choice;
  LabelledCells cells;
  std::vector<std::string> cell_names;  // of the chosen cells
  std::string baseline;        // what the baseline was made from, or why there is none
  std::vector<Evaluation> evaluations;  // one for each embedding

  [[nodiscard]] bool has_labels() const { return !choice.label.empty(); }
};

/// Where the embeddings of a name come from.
struct ReportedModel {
  std::string name, group, checkpoint;
};

struct EvaluationReport {
  std::string program;         // version
  EvaluationOptions options;
  std::vector<ReportedModel> models;
  std::vector<DataSetReport> data_sets;
};

/// "2,638 of 2,700 cells, 9 labels of 'cell_type', 2 batches of 'donor'", or that no label column was named.
std::string cells_words(const DataSetReport& data_set);
/// For each data set a row for each metric, a column for each embedding, as wide as its name; then its groups of seeds.
std::string evaluation_table(const EvaluationReport& report);
/// All results and all settings that they depend on, except the pictures.
std::string evaluation_json(const EvaluationReport& report);

/// metrics.csv: data_set,embedding,group,metric,value. groups.csv: data_set,group,metric,runs,mean,deviation.
/// leiden.csv: data_set,embedding,resolution,clusters,nmi,ari. mmd.csv: data_set,embedding,first,second, cells,
/// bandwidth, mmd with its interval. umap.csv: data_set, cell, label, batch, then x and y of each embedding, empty where a
/// data set does not have it.
std::string metrics_csv(const EvaluationReport& report);
std::string groups_csv(const EvaluationReport& report);
std::string leiden_csv(const EvaluationReport& report);
std::string mmd_csv(const EvaluationReport& report);
std::string umap_csv(const EvaluationReport& report);

/// Makes the folder that write_evaluation() will need. Throws DataError when it cannot be made or written to.
void make_results_folder(const std::filesystem::path& folder);

/// The CSV files (groups.csv when there are groups, umap.csv with pictures) and, last, evaluation.json into a folder, made if
/// it does not exist; each is replaced whole, and one of an earlier evaluation that this one has not is removed. Throws
/// DataError.
void write_evaluation(const std::filesystem::path& folder, const EvaluationReport& report);

}  // namespace scrna::eval
