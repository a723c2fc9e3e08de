// The report of an inspection for people: one screen for a usual file, at most 110 columns where texts allow.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "apps/scrna_train/inspect_report.h"
#include "lib/core/progress.h"

namespace scrna::app {
namespace {

constexpr int kBarColumns = 40;

// Texts of a file on a terminal: control characters would move its cursor, long ones break the table.
std::string printable(const std::string& text, std::size_t longest = 40) {
  std::string out;
  for (const char letter : text)
    out += static_cast<unsigned char>(letter) < 0x20 || letter == 0x7F ? '?' : letter;
  if (out.size() <= longest) return out;
  std::size_t end = longest;
  while (end > 0 && (static_cast<unsigned char>(out[end]) & 0xC0U) == 0x80U) --end;  // UTF-8 stays whole
  return out.substr(0, end) + "...";
}

std::string joined(const std::vector<std::string>& texts) {
  std::string out;
  for (const std::string& text : texts) out += (out.empty() ? "" : ", ") + printable(text);
  return out;
}

std::string number(double value) {
  if (!std::isfinite(value)) return fmt::format("{}", value);
  if (std::floor(value) == value && std::abs(value) < 1e15) return grouped(static_cast<int64_t>(value));
  return std::abs(value) >= 100 ? grouped(std::llround(value)) : fmt::format("{:.3g}", value);
}

std::string percent(int64_t part, int64_t whole) {
  return fmt::format("{:.1f} %",
                     whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

std::string matrix_line(const data::MatrixReport& matrix, bool is_chosen, std::size_t name_columns) {
  std::string line = fmt::format("  {} {:<{}}", is_chosen ? '*' : ' ', printable(matrix.name), name_columns);
  if (!matrix.problem.empty()) return line + "  cannot be read: " + matrix.problem + "\n";
  return line + fmt::format("  {:<5}  {:<8}  {:>7} genes  {} {}  {}: {}\n", data::name_of(matrix.layout),
                            matrix.type, grouped(matrix.genes), grouped(matrix.stored_values),
                            matrix.layout == data::MatrixLayout::kDense ? "values" : "stored",
                            matrix.survey.is_counts ? "counts" : "not counts", matrix.survey.description);
}

std::string obs_line(const data::ObsColumnReport& column, std::size_t name_columns) {
  std::string line =
      fmt::format("    {:<{}}  {:<11}  ", printable(column.name), name_columns, data::name_of(column.kind));
  if (!column.problem.empty()) return line + "cannot be read: " + column.problem + "\n";
  if (column.kind == data::ColumnKind::kInteger || column.kind == data::ColumnKind::kFloat) {
    line += fmt::format("{} to {}", number(column.minimum), number(column.maximum));
  } else if (column.kind != data::ColumnKind::kOther) {
    line += fmt::format("{} {}: {}{}", grouped(column.num_categories),
                        column.num_categories == 1 ? "value" : "values", joined(column.examples),
                        column.num_categories > std::ssize(column.examples) ? ", ..." : "");
  } else {
    line += "an encoding that is not read";
  }
  if (column.num_missing > 0) line += fmt::format("; {} missing", grouped(column.num_missing));
  return line + "\n";
}

std::string distribution_line(const std::string& name, const data::Distribution& values) {
  return fmt::format("    {:<16}  {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n", name, number(values.min),
                     number(values.q05), number(values.median), number(std::round(values.mean)),
                     number(values.q95), number(values.max));
}

std::string histogram_lines(const data::InspectReport& report) {
  int64_t most = 1;
  for (const data::HistogramBin& bin : report.histogram) most = std::max(most, bin.cells);
  std::string text;
  for (const data::HistogramBin& bin : report.histogram) {
    const auto bar = static_cast<std::size_t>(
        std::llround(static_cast<double>(kBarColumns * bin.cells) / static_cast<double>(most)));
    text += fmt::format("    {:>6} - {:<6}  {:>7}{}\n", grouped(bin.low), grouped(bin.high - 1),
                        percent(bin.cells, report.cells), bar == 0 ? "" : "  " + std::string(bar, '#'));
  }
  return text;
}

std::string vocabulary_lines(const data::InspectReport& report) {
  const data::VocabularyReport& vocabulary = *report.in_vocabulary;
  const auto part = [&](double counts) {
    return fmt::format("{:.1f} %", vocabulary.counts > 0 ? 100 * counts / vocabulary.counts : 0.0);
  };
  std::string text =
      fmt::format("    {} of {} are among the {} genes of {}: {} of the counts\n",
                  grouped(vocabulary.known_genes), grouped(report.genes), grouped(vocabulary.size),
                  printable(report.options.vocabulary, 200), part(vocabulary.known_counts));
  std::string misses;
  for (const data::MissedGene& miss : vocabulary.largest_misses) {
    misses += fmt::format("{}{} ({})", misses.empty() ? "" : ", ",
                          miss.id.empty() ? "genes without id" : printable(miss.id), part(miss.counts));
  }
  if (!misses.empty()) text += "    the largest that are not: " + misses + "\n";
  return text;
}

std::size_t longest_name(const auto& items) {
  std::size_t longest = 8;
  for (const auto& item : items) longest = std::max(longest, printable(item.name).size());
  return longest;
}

}  // namespace

std::string inspect_text(const data::InspectReport& report) {
  std::string text = fmt::format("{}\n  {:.1f} MB, {}\n", report.path.string(),
                                 static_cast<double>(report.file_bytes) / 1e6, report.format);
  text += "\n  Matrices (* the one that is trained on)\n";
  for (const data::MatrixReport& matrix : report.matrices) {
    text += matrix_line(matrix, matrix.name == report.matrix, longest_name(report.matrices));
  }
  text += fmt::format("    {} was chosen: {}\n", report.matrix, report.reason);
  text += fmt::format("    {} cells x {} genes, {} {} values, sum {}\n", grouped(report.cells),
                      grouped(report.genes), grouped(report.stored_values),
                      report.layout == data::MatrixLayout::kDense ? "non-zero" : "stored",
                      number(report.total_counts));
  if (report.repeated_entries > 0) {
    text += fmt::format("    {} entries repeat a gene of their cell; they are summed\n",
                        grouped(report.repeated_entries));
  }
  if (report.chosen_cells) {
    text += fmt::format("    {} cells ({}) are chosen by {}\n", grouped(*report.chosen_cells),
                        percent(*report.chosen_cells, report.cells), printable(report.options.filter, 200));
  }

  text += fmt::format("\n  Genes\n    ids of type {} from {}: {}, ...\n", data::name_of(report.gene_id_type),
                      report.gene_id_source, joined(report.gene_id_examples));
  text += fmt::format("    {} of {} are expressed by at least one cell; {} repeat an id\n",
                      grouped(report.genes_expressed), grouped(report.genes),
                      report.repeated_gene_ids == 0 ? "none" : grouped(report.repeated_gene_ids));
  if (!report.removed_prefixes.empty())
    text +=
        fmt::format("    genomes before their names were taken off: {}\n", joined(report.removed_prefixes));
  if (!report.options.gene_map.empty()) {
    text += fmt::format("    {} of {} are translated by {}\n", grouped(report.translated_genes),
                        grouped(report.genes), printable(report.options.gene_map, 200));
  }
  if (report.in_vocabulary) text += vocabulary_lines(report);

  text += "\n  Columns of obs\n";
  if (report.obs_columns.empty()) text += "    none\n";
  for (const data::ObsColumnReport& column : report.obs_columns)
    text += obs_line(column, longest_name(report.obs_columns));

  text += fmt::format("\n  {:<18}  {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "Per cell", "min", "5 %", "median",
                      "mean", "95 %", "max");
  text += distribution_line("expressed genes", report.expressed_genes);
  text += distribution_line("counts", report.counts_per_cell);
  text += "\n  Cells by number of expressed genes\n" + histogram_lines(report);

  text += "\n  Context\n";
  for (const data::ContextReport& context : report.contexts) {
    text += fmt::format("    {:>7} tokens cut {:>7} of the cells, {:>7} of the expressed genes\n",
                        grouped(context.max_tokens), percent(context.truncated_cells, report.cells),
                        percent(context.lost_values, report.expressed_values));
  }

  const Suitability suitability = judge_suitability(report);
  text += fmt::format("\n  For training: {}\n", suitability.verdict);
  for (const std::string& note : suitability.notes) text += fmt::format("    - {}\n", note);
  if (!suitability.next_command.empty()) text += fmt::format("  Next: {}\n", suitability.next_command);
  return text;
}

}  // namespace scrna::app
