// From numbers to advice. Thresholds are rules of thumb and say so; only what training refuses is "not
// suitable".
#include <algorithm>

#include <fmt/format.h>

#include "apps/scrna_train/inspect_report.h"
#include "lib/core/progress.h"
#include "lib/data/data_config.h"

namespace scrna::app {
namespace {

constexpr int64_t kFewCells = 1000;      // a trial, not a model
constexpr double kShortCellGenes = 200;  // below, little context is left to guess from

// The shortest usual context that holds 95 % of the cells whole, at most 8,192.
int64_t context_for(const data::InspectReport& report) {
  for (const int64_t context : {512, 1024, 2048, 4096}) {
    if (report.expressed_genes.q95 <= static_cast<double>(context)) return context;
  }
  return 8192;
}

// For a shell, in single quotes when needed.
std::string quoted(const std::string& text) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,+@%=";
  if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
  std::string out = "'";
  for (const char letter : text) out += letter == '\'' ? std::string("'\\''") : std::string(1, letter);
  return out + "'";
}

std::string percent(int64_t part, int64_t whole) {
  return fmt::format("{:.1f} %",
                     whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

}  // namespace

Suitability judge_suitability(const data::InspectReport& report) {
  Suitability result;
  std::string settings;
  bool is_refused = false;
  const int64_t usable = report.cells - report.empty_cells;
  if (!report.is_counts) {
    is_refused = true;
    const auto chosen =
        std::find_if(report.matrices.begin(), report.matrices.end(),
                     [&](const data::MatrixReport& matrix) { return matrix.name == report.matrix; });
    const bool can_be_accepted = chosen != report.matrices.end() && data::can_be_accepted(chosen->survey);
    result.notes.push_back(report.matrix + " does not hold raw counts: training refuses it" +
                           (can_be_accepted ? " unless data.allow_normalized=true" : "") +
                           "; look for the counts in the source of the file");
  }
  if (usable == 0) {
    is_refused = true;
    result.notes.push_back(fmt::format("no cell expresses {} genes or more", data::DataConfig{}.min_genes));
  } else if (report.empty_cells > 0) {
    result.notes.push_back(fmt::format("{} cells ({}) express fewer than {} genes and will be left out",
                                       grouped(report.empty_cells), percent(report.empty_cells, report.cells),
                                       data::DataConfig{}.min_genes));
  }
  if (report.gene_id_type == data::GeneIdType::kOther) {
    result.notes.push_back(
        "the gene ids look like neither Ensembl ids nor symbols: models of other files will not "
        "know them; if a var column has better ones, name it with data.gene_column");
  }
  const double lowest_hit_rate = data::DataConfig{}.min_gene_hit_rate;
  if (const auto& vocabulary = report.in_vocabulary;
      vocabulary && vocabulary->known_counts < lowest_hit_rate * vocabulary->counts) {
    is_refused = true;
    result.notes.push_back(
        fmt::format("less than {:.0f} % of the counts are in genes of the vocabulary "
                    "(data.min_gene_hit_rate): is it another species, or another kind of gene id?",
                    100 * lowest_hit_rate));
  }
  if (report.chosen_cells == 0) {
    is_refused = true;
    result.notes.push_back("the filter chooses no cell");
  }
  if (report.repeated_gene_ids > 0) {
    result.notes.push_back(fmt::format("{} genes repeat an id; counts of the same id are summed",
                                       grouped(report.repeated_gene_ids)));
  }
  if (usable > 0 && report.expressed_genes.median < kShortCellGenes) {
    result.notes.push_back(
        fmt::format("cells are short (median {:.0f} expressed genes): little context to learn from",
                    report.expressed_genes.median));
  }
  if (usable > 0 && usable < kFewCells) {
    result.notes.push_back(fmt::format("{} cells are enough for a trial, not for a model", grouped(usable)));
  }
  const bool with_care = !result.notes.empty();
  result.verdict = is_refused ? "not suitable as it is" : with_care ? "suitable, with care" : "suitable";
  if (usable == 0) return result;
  const int64_t context = context_for(report);
  result.notes.push_back(
      fmt::format("a context of {} tokens is advised; an epoch has {} expressed genes to learn from",
                  grouped(context), grouped(report.expressed_values)));
  if (!report.is_counts) return result;
  result.next_command = fmt::format(
      "scrna-train train --config configs/demo.yaml --set data.files={} --set run.dir={} --set "
      "tokenizer.max_tokens={}",
      quoted(report.path.string()), quoted("runs/" + report.path.stem().string()), context);
  if (report.options.matrix != "auto") result.next_command += " --set data.matrix=" + quoted(report.matrix);
  const auto add = [&](const char* setting, const std::string& value) {
    if (!value.empty()) result.next_command += fmt::format(" --set {}={}", setting, quoted(value));
  };
  add("data.genome", report.options.genome);
  add("data.gene_column", report.options.gene_column);
  add("data.gene_map", report.options.gene_map);
  add("data.vocabulary", report.options.vocabulary);
  add("data.filter", report.options.filter);
  return result;
}

}  // namespace scrna::app
