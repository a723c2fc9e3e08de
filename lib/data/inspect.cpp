#include "lib/data/inspect.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_set>

#include "lib/core/error.h"
#include "lib/data/gene_aliases.h"
#include "lib/data/obs_filter.h"
#include "lib/data/tokenizer.h"
#include "lib/data/vocabulary.h"

namespace scrna::data {
namespace {

constexpr int64_t kCellsPerRead = 256;
constexpr std::size_t kExamples = 4;
constexpr float kCountTolerance = 1e-4F;  // as in counts_verdict.cpp

// `sorted` is not empty.
double quantile(const std::vector<double>& sorted, double part) {
  const double position = part * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// Puts `values` in order. NaN (a matrix that holds them) makes all of it NaN.
Distribution distribution_of(std::vector<double>& values) {
  if (values.empty()) return {};
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  if (std::isnan(sum)) return {sum, sum, sum, sum, sum, sum};
  std::sort(values.begin(), values.end());
  return {.min = values.front(),
          .q05 = quantile(values, 0.05),
          .median = quantile(values, 0.5),
          .mean = sum / static_cast<double>(values.size()),
          .q95 = quantile(values, 0.95),
          .max = values.back()};
}

// 1, 2, 5, 10, 20, 50 ...: the first that needs at most twelve bins.
int64_t bin_width(int64_t longest) {
  for (int64_t power = 1;; power *= 10) {
    for (const int64_t digit : {1, 2, 5}) {
      if (digit * power * 12 > longest) return digit * power;
    }
  }
}

std::vector<HistogramBin> histogram_of(const std::vector<int32_t>& lengths) {
  const int64_t longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
  const int64_t width = bin_width(longest);
  std::vector<HistogramBin> bins;
  for (int64_t low = 0; low <= longest; low += width) bins.push_back({low, low + width, 0});
  for (const int32_t length : lengths) ++bins[static_cast<std::size_t>(length / width)].cells;
  return bins;
}

MatrixReport report_matrix(const AnnDataFile& file, const std::string& name, const CountsVerdict& verdict) {
  MatrixReport report{.name = name};
  try {
    const auto matrix = file.open_matrix(name);
    report.layout = matrix->layout();
    report.type = matrix->type_name();
    report.cells = matrix->num_cells();
    report.genes = matrix->num_genes();
    report.stored_values = matrix->stored_values();
    const auto judged =
        std::find_if(verdict.candidates.begin(), verdict.candidates.end(),
                     [&](const MatrixVerdict& candidate) { return candidate.matrix == name; });
    report.survey = judged != verdict.candidates.end() ? judged->survey : survey_values(*matrix);
  } catch (const DataError& problem) {
    report.problem = problem.what();
  }
  return report;
}

ObsColumnReport report_obs_column(const AnnDataFile& file, const std::string& name) {
  ObsColumnReport report{.name = name};
  try {
    report.kind = file.obs_kind(name);
    if (report.kind == ColumnKind::kInteger || report.kind == ColumnKind::kFloat) {
      report.minimum = report.maximum = std::numeric_limits<double>::quiet_NaN();
      for (const double value : file.obs_numbers(name)) {
        if (std::isnan(value)) {
          ++report.num_missing;
          continue;
        }
        report.minimum = std::fmin(report.minimum, value);
        report.maximum = std::fmax(report.maximum, value);
      }
    }
    if (report.kind == ColumnKind::kCategorical || report.kind == ColumnKind::kText ||
        report.kind == ColumnKind::kBoolean) {
      const CategoryColumn column = file.obs_categories(name);
      report.num_categories = std::ssize(column.categories);
      report.num_missing = std::count(column.codes.begin(), column.codes.end(), -1);
      report.examples.assign(column.categories.begin(),
                             column.categories.begin() +
                                 static_cast<std::ptrdiff_t>(std::min(kExamples, column.categories.size())));
    }
  } catch (const DataError& problem) {
    report.problem = problem.what();
  }
  return report;
}

// Returns the ids, one per gene of the chosen matrix.
std::vector<std::string> report_genes(const AnnDataFile& file, const InspectOptions& options,
                                      InspectReport& report) {
  GeneIds ids = choose_gene_ids(file, report.matrix, options.gene_column);
  if (!options.gene_map.empty()) report.translated_genes = GeneAliases::load(options.gene_map).translate(ids);
  report.gene_id_type = ids.type;
  report.gene_id_source = ids.source;
  report.removed_prefixes = ids.removed_prefixes;
  std::unordered_set<std::string_view> distinct;
  int64_t without_id = 0;
  for (const std::string& id : ids.ids) {
    if (id.empty()) {
      ++without_id;
    } else if (distinct.insert(id).second && report.gene_id_examples.size() < kExamples) {
      report.gene_id_examples.push_back(id);
    }
  }
  report.repeated_gene_ids = std::ssize(ids.ids) - without_id - std::ssize(distinct);
  return std::move(ids.ids);
}

VocabularyReport report_vocabulary(const std::filesystem::path& path, const std::vector<std::string>& ids,
                                   std::vector<double> counts_of_gene) {
  const Vocabulary vocabulary = Vocabulary::load(path);
  const GeneMap map = map_genes(vocabulary, ids);
  VocabularyReport report{.size = std::ssize(vocabulary.genes()), .known_genes = map.num_known};
  for (std::size_t gene = 0; gene < ids.size(); ++gene) {
    report.counts += counts_of_gene[gene];
    if (map.tokens[gene] == Vocabulary::kUnk) continue;
    report.known_counts += counts_of_gene[gene];
    counts_of_gene[gene] = 0;
  }
  report.largest_misses = largest_misses(counts_of_gene, ids);
  return report;
}

bool is_strange(float value) {
  return !std::isfinite(value) || value < 0 || std::abs(value - std::round(value)) > kCountTolerance;
}

// The one pass over the matrix. Returns the sum of each gene's values above zero.
std::vector<double> read_cells(const CountMatrix& matrix, const Progress& progress, InspectReport& report) {
  std::vector<int32_t> lengths;
  std::vector<double> counts;
  std::vector<double> counts_of_gene(static_cast<std::size_t>(matrix.num_genes()));
  int64_t num_nonzero = 0;
  for (int64_t first = 0; first < matrix.num_cells(); first += kCellsPerRead) {
    const CellBlock block = matrix.read(first, std::min(kCellsPerRead, matrix.num_cells() - first));
    num_nonzero += std::ssize(block.values);
    report.repeated_entries += block.num_repeated;
    for (std::size_t cell = 0; cell + 1 < block.indptr.size(); ++cell) {
      int32_t length = 0;
      double sum = 0;
      for (auto i = static_cast<std::size_t>(block.indptr[cell]);
           i < static_cast<std::size_t>(block.indptr[cell + 1]); ++i) {
        sum += block.values[i];
        if (is_strange(block.values[i])) ++report.strange_values;
        if (block.values[i] > 0) {
          ++length;
          counts_of_gene[static_cast<std::size_t>(block.genes[i])] += block.values[i];
        }
      }
      lengths.push_back(length);
      counts.push_back(sum);
      report.total_counts += sum;
    }
    if (progress) progress("inspect", first + block.num_cells(), matrix.num_cells());
  }
  report.stored_values = matrix.layout() == MatrixLayout::kDense ? num_nonzero : matrix.stored_values();
  report.genes_expressed = std::count_if(counts_of_gene.begin(), counts_of_gene.end(),
                                         [](double sum_of_gene) { return sum_of_gene > 0; });
  report.expressed_values = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  report.empty_cells = std::count_if(lengths.begin(), lengths.end(),
                                     [](int32_t length) { return length < DataConfig{}.min_genes; });
  report.histogram = histogram_of(lengths);
  for (ContextReport& context : report.contexts) {
    for (const int32_t length : lengths) {
      context.truncated_cells += length > context.max_tokens ? 1 : 0;
      context.lost_values += std::max<int64_t>(0, length - context.max_tokens);
    }
  }
  report.counts_per_cell = distribution_of(counts);
  counts.assign(lengths.begin(), lengths.end());
  report.expressed_genes = distribution_of(counts);
  return counts_of_gene;
}

}  // namespace

InspectReport inspect_file(const std::filesystem::path& path, const InspectOptions& options,
                           const Progress& progress) {
  const AnnDataFile file(path, options.genome);
  InspectReport report{.options = options,
                       .path = path,
                       .file_bytes = std::filesystem::file_size(path),
                       .format = file.format()};
  const CountsVerdict verdict = judge_counts(file, options.matrix);
  for (const std::string& name : file.matrix_names())
    report.matrices.push_back(report_matrix(file, name, verdict));
  report.matrix = verdict.matrix;
  report.reason = verdict.reason;
  const auto matrix = file.open_matrix(verdict.matrix);
  report.layout = matrix->layout();
  report.cells = matrix->num_cells();
  report.genes = matrix->num_genes();
  const std::vector<std::string> gene_ids = report_genes(file, options, report);
  if (!options.filter.empty()) {
    const std::vector<bool> chosen = ObsFilter::parse(options.filter, "--filter").choose(file).chosen;
    report.chosen_cells = std::count(chosen.begin(), chosen.end(), true);
  }
  for (const std::string& name : file.obs_columns())
    report.obs_columns.push_back(report_obs_column(file, name));
  for (const int64_t max_tokens : options.max_tokens) report.contexts.push_back({.max_tokens = max_tokens});
  std::vector<double> counts_of_gene = read_cells(*matrix, progress, report);
  if (!options.vocabulary.empty())
    report.in_vocabulary = report_vocabulary(options.vocabulary, gene_ids, std::move(counts_of_gene));
  report.is_counts = verdict.is_counts && report.strange_values == 0;
  if (verdict.is_counts && !report.is_counts) {
    report.reason += fmt::format("; but {} of its other values are negative, fractional or not finite",
                                 report.strange_values);
  }
  return report;
}

}  // namespace scrna::data
