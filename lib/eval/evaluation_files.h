// Results of `scrna-train evaluate` as text: a table to read, JSON with everything, and CSV files for other programs.
// Embeddings stand side by side, in the order given; numbers that do not exist are "-", null and empty.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lib/eval/evaluation.h"
#include "lib/eval/evaluation_data.h"

namespace scrna::eval {

struct EvaluationReport {
  std::string file;            // as the user wrote it
  std::string program;         // version
  CellChoice choice;
  LabelledCells cells;
  EvaluationOptions options;
  std::vector<std::string> cell_names;  // of the chosen cells
  std::string baseline;        // what the baseline was made from, or why there is none
  std::vector<Evaluation> evaluations;  // one for each embedding
};

/// A row for each metric, a column for each embedding, as wide as its name.
std::string evaluation_table(const EvaluationReport& report);
/// All results and all settings that they depend on, except the pictures.
std::string evaluation_json(const EvaluationReport& report);

/// metrics.csv: embedding,metric,value. leiden.csv: embedding,resolution,clusters,nmi,ari. mmd.csv: embedding,first,second,
/// cells, bandwidth, mmd with its interval. umap.csv: cell, label, batch, then x and y of each embedding.
std::string metrics_csv(const EvaluationReport& report);
std::string leiden_csv(const EvaluationReport& report);
std::string mmd_csv(const EvaluationReport& report);
std::string umap_csv(const EvaluationReport& report);

/// evaluation.json and the CSV files into a folder, made if it does not exist; each is replaced whole. Throws DataError.
void write_evaluation(const std::filesystem::path& folder, const EvaluationReport& report);

}  // namespace scrna::eval
