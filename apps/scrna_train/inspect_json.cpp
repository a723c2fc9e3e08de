// The JSON of an inspection. Keys are a promise to scripts: add, never rename. Numbers that are not finite
// become null.
#include <cmath>

#include "apps/scrna_train/inspect_report.h"

namespace scrna::app {
namespace {

using nlohmann::ordered_json;

// Whole numbers as such: sums of counts are integers for whoever reads them.
ordered_json number(double value) {
  if (std::floor(value) == value && std::abs(value) < 9007199254740992.0) return static_cast<int64_t>(value);
  return value;
}

ordered_json json_of(const data::Distribution& values) {
  return {{"min", number(values.min)},   {"q05", number(values.q05)}, {"median", number(values.median)},
          {"mean", number(values.mean)}, {"q95", number(values.q95)}, {"max", number(values.max)}};
}

ordered_json json_of(const data::MatrixReport& matrix) {
  if (!matrix.problem.empty()) return {{"name", matrix.name}, {"problem", matrix.problem}};
  return {{"name", matrix.name},
          {"layout", data::name_of(matrix.layout)},
          {"type", matrix.type},
          {"cells", matrix.cells},
          {"genes", matrix.genes},
          {"stored_values", matrix.stored_values},
          {"is_counts", matrix.survey.is_counts},
          {"holds", matrix.survey.description}};
}

ordered_json json_of(const data::ObsColumnReport& column) {
  ordered_json json{{"name", column.name}, {"kind", data::name_of(column.kind)}};
  if (!column.problem.empty()) {
    json["problem"] = column.problem;
    return json;
  }
  if (column.kind == data::ColumnKind::kInteger || column.kind == data::ColumnKind::kFloat) {
    json["min"] = number(column.minimum);
    json["max"] = number(column.maximum);
  } else {
    json["categories"] = column.num_categories;
    json["examples"] = column.examples;
  }
  json["missing"] = column.num_missing;
  return json;
}

// Rates are parts of 1; of nothing, null.
ordered_json json_of(const data::VocabularyReport& vocabulary) {
  ordered_json json{{"vocabulary_genes", vocabulary.size},
                    {"known_genes", vocabulary.known_genes},
                    {"count_hit_rate", vocabulary.known_counts / vocabulary.counts},
                    {"largest_misses", ordered_json::array()}};
  for (const data::MissedGene& miss : vocabulary.largest_misses)
    json["largest_misses"].push_back({{"id", miss.id}, {"counts", number(miss.counts)}});
  return json;
}

}  // namespace

ordered_json inspect_json(const data::InspectReport& report) {
  const Suitability suitability = judge_suitability(report);
  ordered_json json{{"path", report.path.string()},
                    {"bytes", report.file_bytes},
                    {"format", report.format},
                    {"matrix", report.matrix},
                    {"reason", report.reason},
                    {"is_counts", report.is_counts},
                    {"layout", data::name_of(report.layout)},
                    {"cells", report.cells},
                    {"genes", report.genes},
                    {"stored_values", report.stored_values},
                    {"repeated_entries", report.repeated_entries},
                    {"total_counts", number(report.total_counts)},
                    {"gene_id_type", data::name_of(report.gene_id_type)},
                    {"gene_id_source", report.gene_id_source},
                    {"gene_id_examples", report.gene_id_examples},
                    {"repeated_gene_ids", report.repeated_gene_ids},
                    {"removed_genome_prefixes", report.removed_prefixes},
                    {"genes_expressed", report.genes_expressed},
                    {"expressed_genes", json_of(report.expressed_genes)},
                    {"counts_per_cell", json_of(report.counts_per_cell)},
                    {"cells_left_out", report.empty_cells},
                    {"matrices", ordered_json::array()},
                    {"obs_columns", ordered_json::array()},
                    {"contexts", ordered_json::array()},
                    {"suitability", suitability.verdict},
                    {"notes", suitability.notes},
                    {"next_command", suitability.next_command}};
  if (!report.options.gene_map.empty()) json["translated_genes"] = report.translated_genes;
  if (report.chosen_cells) json["chosen_cells"] = *report.chosen_cells;
  if (report.in_vocabulary) json["in_vocabulary"] = json_of(*report.in_vocabulary);
  for (const data::MatrixReport& matrix : report.matrices) json["matrices"].push_back(json_of(matrix));
  for (const data::ObsColumnReport& column : report.obs_columns)
    json["obs_columns"].push_back(json_of(column));
  for (const data::ContextReport& context : report.contexts) {
    json["contexts"].push_back({{"max_tokens", context.max_tokens},
                                {"truncated_cells", context.truncated_cells},
                                {"lost_values", context.lost_values}});
  }
  return json;
}

}  // namespace scrna::app
