#include "lib/data/corpus_reports.h"

#include <nlohmann/json.hpp>

namespace scrna::data {

std::string reports_to_json(const std::vector<SourceReport>& reports) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const SourceReport& report : reports) {
    const CellSummary& sum = report.tokens.sum;
    nlohmann::ordered_json misses = nlohmann::ordered_json::array();
    for (const MissedGene& gene : report.largest_misses) misses.push_back({gene.id, gene.counts});
    all.push_back({{"name", report.name},
                   {"matrix", report.matrix},
                   {"cells", report.cells},
                   {"chosen_cells", report.chosen_cells},
                   {"genes", report.genes},
                   {"known_genes", report.known_genes},
                   {"repeated_entries", report.repeated_entries},
                   {"unusable_cells", report.unusable_cells},
                   {"largest_misses", misses},
                   {"tokenized_cells", report.tokens.cells},
                   {"expressed_genes", sum.expressed_genes},
                   {"vocabulary_genes", sum.vocabulary_genes},
                   {"kept_genes", sum.kept_genes},
                   {"counts", sum.counts},
                   {"vocabulary_counts", sum.vocabulary_counts},
                   {"kept_counts", sum.kept_counts}});
  }
  return all.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::vector<SourceReport> reports_from_json(const std::string& text) {
  std::vector<SourceReport> reports;
  for (const auto& json : nlohmann::ordered_json::parse(text)) {
    SourceReport report;
    report.name = json.at("name").get<std::string>();
    report.matrix = json.at("matrix").get<std::string>();
    report.cells = json.at("cells").get<int64_t>();
    report.chosen_cells = json.at("chosen_cells").get<int64_t>();
    report.genes = json.at("genes").get<int64_t>();
    report.known_genes = json.at("known_genes").get<int64_t>();
    report.repeated_entries = json.at("repeated_entries").get<int64_t>();
    report.unusable_cells = json.value("unusable_cells", int64_t{0});  // not in caches made before it was counted
    for (const auto& gene : json.at("largest_misses"))
      report.largest_misses.push_back({gene.at(0).get<std::string>(), gene.at(1).get<double>()});
    report.tokens.cells = json.at("tokenized_cells").get<int64_t>();
    report.tokens.sum = {.expressed_genes = json.at("expressed_genes").get<int64_t>(),
                         .vocabulary_genes = json.at("vocabulary_genes").get<int64_t>(),
                         .kept_genes = json.at("kept_genes").get<int64_t>(),
                         .counts = json.at("counts").get<double>(),
                         .vocabulary_counts = json.at("vocabulary_counts").get<double>(),
                         .kept_counts = json.at("kept_counts").get<double>()};
    reports.push_back(std::move(report));
  }
  return reports;
}

}  // namespace scrna::data
