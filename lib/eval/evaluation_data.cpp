#include "lib/eval/evaluation_data.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/core/random.h"
#include "lib/core/suggest.h"
#include "lib/data/counts_verdict.h"
#include "lib/data/label_words.h"
#include "lib/data/obsm.h"
#include "lib/eval/log_normalised.h"

namespace scrna::eval {
namespace {

constexpr uint64_t kSubsample = (uint64_t{1} << 32) + 3;  // stream of RandomPurpose::kEvaluate

/// Codes of excluded labels become -1.
void exclude(data::CategoryColumn& column, const CellChoice& choice, const std::string& file, LabelledCells& out) {
  for (const std::string& label : choice.excluded_labels) {
    const auto found = std::find(column.categories.begin(), column.categories.end(), label);
    if (found == column.categories.end()) {
      const std::string near = nearest_name(label, column.categories);
      throw DataError("{}: obs column '{}' has no value '{}' to exclude{}", file, choice.label, label,
                      near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
    }
    const auto code = static_cast<int32_t>(found - column.categories.begin());
    for (int32_t& cell : column.codes) {
      if (cell != code) continue;
      cell = -1;
      ++out.excluded;
    }
  }
}

/// A column, with -1 for what pandas writes for a missing value, too.
data::CategoryColumn read_categories(const data::AnnDataFile& file, const std::string& name) {
  data::CategoryColumn column = file.obs_categories(name);
  for (int32_t& code : column.codes)
    if (code >= 0 && data::is_missing_label(column.categories[code])) code = -1;
  return column;
}

/// The label column, or one name for all cells.
data::CategoryColumn read_labels(const data::AnnDataFile& file, const CellChoice& choice) {
  if (!choice.label.empty()) return read_categories(file, choice.label);
  return {std::vector<int32_t>(file.num_cells()), {"all cells"}};
}

void leave_out_rare(data::CategoryColumn& column, const CellChoice& choice, LabelledCells& out) {
  if (choice.label.empty()) return;
  std::vector<int64_t> sizes(column.categories.size());
  for (const int32_t code : column.codes)
    if (code >= 0) ++sizes[code];
  for (std::size_t label = 0; label < sizes.size(); ++label) {
    if (sizes[label] == 0 || sizes[label] >= choice.min_label_cells) continue;
    out.rare_labels.push_back(fmt::format("{} ({})", column.categories[label], sizes[label]));
    out.rare_cells += sizes[label];
    for (int32_t& code : column.codes)
      if (code == static_cast<int32_t>(label)) code = -1;
  }
}

/// Keeps `most` of the cells, ascending.
void subsample(std::vector<int64_t>& cells, int64_t most, uint64_t seed) {
  const RandomStream random(seed, RandomPurpose::kEvaluate, kSubsample);
  const int64_t count = static_cast<int64_t>(cells.size());
  for (int64_t i = 0; i < most; ++i) std::swap(cells[i], cells[i + random.below(count - i, i)]);
  cells.resize(most);
  std::sort(cells.begin(), cells.end());
}

void say_what_was_left_out(const std::string& file, const CellChoice& choice, const LabelledCells& chosen) {
  if (chosen.unlabelled > 0)
    log::warning("[evaluate] {}: {} of {} cells have no '{}' and are left out", file, grouped(chosen.unlabelled),
                 grouped(chosen.file_cells), choice.label);
  for (const std::string& label : chosen.labels.names)
    if (data::sounds_like_no_label(label))
      log::warning("[evaluate] {}: '{}' counts as a label of '{}' like any other; --exclude-label '{}' leaves it out", file,
                   label, choice.label, label);
  if (chosen.excluded > 0) log::info("[evaluate] {}: {} cells have excluded labels", file, grouped(chosen.excluded));
  if (!chosen.rare_labels.empty())
    log::warning("[evaluate] {}: {} labels with fewer than {} cells are left out (--min-label-cells): {}", file,
                 chosen.rare_labels.size(), choice.min_label_cells, fmt::join(chosen.rare_labels, ", "));
  if (chosen.without_batch > 0)
    log::warning("[evaluate] {}: {} cells have no '{}' and are left out", file, grouped(chosen.without_batch), choice.batch);
  if (chosen.not_sampled > 0)
    log::warning("[evaluate] {}: {} cells are a random sample of {} (--max-cells)", file,
                 grouped(choice.max_cells), grouped(choice.max_cells + chosen.not_sampled));
}

void require_two_labels(const std::string& where, const CellChoice& choice, const LabelledCells& chosen) {
  if (chosen.labels.count() >= 2 || choice.label.empty()) return;
  throw DataError("{}: obs column '{}' has {} label{} with at least {} cells{}; at least two are needed", where, choice.label,
                  chosen.labels.count(), chosen.labels.count() == 1 ? "" : "s", choice.min_label_cells,
                  chosen.rare_labels.empty()
                      ? ""
                      : fmt::format(" (too rare: {}; see --min-label-cells)", fmt::join(chosen.rare_labels, ", ")));
}

std::unordered_map<std::string, int64_t> rows_by_name(const data::AnnDataFile& file) {
  std::unordered_map<std::string, int64_t> rows;
  int64_t row = 0;
  for (const std::string& name : file.obs_index())
    if (!rows.emplace(name, row++).second)
      throw DataError("{}: the cell name '{}' occurs twice in obs; cells cannot be found by it: adata.obs_names_make_unique()",
                      file.path().string(), name);
  return rows;
}

/// Rows of `other` that hold the chosen cells of `file`.
std::vector<int64_t> matching_rows(const data::AnnDataFile& file, const data::AnnDataFile& other,
                                   const std::vector<int64_t>& cells) {
  const std::unordered_map<std::string, int64_t> rows = rows_by_name(other);
  const std::vector<std::string> names = file.obs_index();
  std::vector<int64_t> found;
  int64_t missing = 0;
  std::string first_missing;
  for (const int64_t cell : cells) {
    const auto row = rows.find(names[cell]);
    if (row != rows.end()) {
      found.push_back(row->second);
    } else if (missing++ == 0) {
      first_missing = names[cell];
    }
  }
  if (missing > 0)
    throw DataError("{} holds no embedding of {} of the {} cells of {} (first: '{}'); cells are matched by obs_names, so both "
                    "files must have the same names", other.path().string(), missing, cells.size(), file.path().string(),
                    first_missing);
  return found;
}

}  // namespace

LabelledCells choose_cells(const data::AnnDataFile& file, const CellChoice& choice) {
  const std::string name = file.path().filename().string();
  LabelledCells out;
  out.file_cells = file.num_cells();
  data::CategoryColumn column = read_labels(file, choice);
  out.unlabelled = std::count(column.codes.begin(), column.codes.end(), -1);
  exclude(column, choice, name, out);
  std::optional<data::CategoryColumn> batches;
  if (!choice.batch.empty()) {
    batches = read_categories(file, choice.batch);
    for (std::size_t i = 0; i < column.codes.size(); ++i) {
      if (column.codes[i] < 0 || batches->codes[i] >= 0) continue;
      column.codes[i] = -1;
      ++out.without_batch;
    }
  }
  if (choice.max_cells > 0) {
    std::vector<int64_t> kept;
    for (std::size_t i = 0; i < column.codes.size(); ++i)
      if (column.codes[i] >= 0) kept.push_back(static_cast<int64_t>(i));
    if (static_cast<int64_t>(kept.size()) > choice.max_cells) {
      out.not_sampled = static_cast<int64_t>(kept.size()) - choice.max_cells;
      subsample(kept, choice.max_cells, choice.seed);
      std::vector<int32_t> codes(column.codes.size(), -1);
      for (const int64_t cell : kept) codes[cell] = column.codes[cell];
      column.codes = std::move(codes);
    }
  }
  leave_out_rare(column, choice, out);  // after sampling: it can make labels rare
  out.labels = labels_from_codes(column.codes, column.categories, out.cells);
  say_what_was_left_out(name, choice, out);
  require_two_labels(name, choice, out);
  if (batches) {
    std::vector<int32_t> codes;
    for (const int64_t cell : out.cells) codes.push_back(batches->codes[cell]);
    std::vector<int64_t> all;
    out.batches = labels_from_codes(codes, batches->categories, all);
    if (out.batches->count() < 2)
      throw DataError("{}: obs column '{}' has one value only, '{}', among the chosen cells; batch metrics need two: leave out "
                      "--batch", name, choice.batch, out.batches->names[0]);
  }
  return out;
}

EmbeddingPlace parse_embedding_place(const std::string& text) {
  EmbeddingPlace place;
  const std::size_t colon = text.rfind(':');
  if (colon != std::string::npos) place.file = text.substr(0, colon);
  place.key = colon == std::string::npos ? text : text.substr(colon + 1);
  if (place.key.starts_with("/")) place.key.erase(0, 1);
  if (place.key.starts_with("obsm/")) place.key.erase(0, 5);
  const bool is_file = place.key.ends_with(".h5ad");
  if (place.key.empty() || is_file || (colon != std::string::npos && place.file.empty()))
    throw ConfigError("--embedding '{}': expected KEY (of obsm of the evaluated file) or FILE.h5ad:obsm/KEY{}", text,
                      is_file ? fmt::format("; for example {}:obsm/X_pca", text) : "");
  return place;
}

CellMatrix read_embedding(const data::AnnDataFile& file, const EmbeddingPlace& place, const std::vector<int64_t>& cells) {
  const std::filesystem::path& path = place.file.empty() ? file.path() : place.file;
  std::vector<int64_t> rows = cells;
  if (!place.file.empty()) rows = matching_rows(file, data::AnnDataFile(place.file), cells);
  const data::ObsmMatrix all = data::read_obsm(path, place.key);
  CellMatrix out(static_cast<int64_t>(rows.size()), all.width);
  for (int64_t i = 0; i < out.cells; ++i) {
    if (rows[i] >= all.cells)
      throw DataError("{}: obsm/{} has {} rows, but obs has more cells", path.string(), place.key, all.cells);
    std::copy_n(all.values.begin() + rows[i] * all.width, all.width, out.row(i));
  }
  return out;
}

void leave_out_missing(LabelledCells& cells, std::vector<NamedEmbedding>& embeddings, const CellChoice& choice) {
  std::vector<bool> keep(cells.cells.size(), true);
  for (const NamedEmbedding& embedding : embeddings) {
    int64_t missing = 0;
    for (int64_t i = 0; i < embedding.values.cells; ++i) {
      if (!std::isnan(embedding.values.row(i)[0])) continue;
      keep[i] = false;
      ++missing;
    }
    if (missing > 0)
      log::warning("[evaluate] {}: {} of {} cells have no embedding (NaN) and are left out of every comparison", embedding.name,
                   grouped(missing), grouped(embedding.values.cells));
  }
  cells.without_embedding = std::count(keep.begin(), keep.end(), false);
  if (cells.without_embedding == 0) return;
  std::vector<int64_t> sizes(cells.labels.names.size());
  for (std::size_t i = 0; i < keep.size(); ++i) sizes[cells.labels.codes[i]] += keep[i];
  const int64_t least = choice.label.empty() ? 0 : choice.min_label_cells;
  std::vector<int64_t> kept, rows;
  for (std::size_t i = 0; i < keep.size(); ++i) {
    if (!keep[i] || sizes[cells.labels.codes[i]] < least) continue;
    kept.push_back(static_cast<int64_t>(i));
    rows.push_back(cells.cells[i]);
  }
  for (std::size_t label = 0; label < sizes.size(); ++label) {
    if (sizes[label] >= least) continue;
    cells.rare_labels.push_back(fmt::format("{} ({})", cells.labels.names[label], sizes[label]));
    cells.rare_cells += sizes[label];
    log::warning("[evaluate] the label '{}' has only {} cells with an embedding and is left out", cells.labels.names[label],
                 sizes[label]);
  }
  cells.labels = labels_of(cells.labels, kept);
  if (cells.batches) cells.batches = labels_of(*cells.batches, kept);
  cells.cells = std::move(rows);
  for (NamedEmbedding& embedding : embeddings) embedding.values = rows_of(embedding.values, kept);
  if (cells.cells.empty()) throw DataError("none of the cells has a row in every embedding: nothing is left to compare");
  require_two_labels("cells with an embedding", choice, cells);
}

Baseline make_baseline(const data::AnnDataFile& file, const std::string& matrix, const std::vector<int64_t>& cells) {
  const data::CountsVerdict verdict = data::judge_counts(file, matrix);
  Baseline out;
  out.matrix = verdict.matrix;
  const auto survey = std::find_if(verdict.candidates.begin(), verdict.candidates.end(),
                                   [&](const data::MatrixVerdict& candidate) { return candidate.matrix == verdict.matrix; });
  if (!verdict.is_counts && (survey == verdict.candidates.end() || !data::can_be_accepted(survey->survey))) {
    out.problem = verdict.reason;
    return out;
  }
  out.was_normalised = !verdict.is_counts;
  out.scores = log_normalised_components(*file.open_matrix(verdict.matrix), cells, {.is_normalised = out.was_normalised});
  return out;
}

}  // namespace scrna::eval
