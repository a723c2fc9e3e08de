#include "lib/data/cell_source.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <unordered_set>
#include <utility>

#include <glob.h>

#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/data/counts_verdict.h"
#include "lib/data/gene_aliases.h"
#include "lib/data/obs_filter.h"
#include "lib/data/vocabulary.h"

namespace scrna::data {
namespace {

std::vector<std::filesystem::path> matches_of(const std::string& pattern) {
  std::error_code ignored;
  if (std::filesystem::exists(pattern, ignored)) return {pattern};
  glob_t found{};
  const int status = ::glob(pattern.c_str(), 0, nullptr, &found);  // sorted by name
  std::vector<std::filesystem::path> paths(found.gl_pathv,
                                           found.gl_pathv + (status == 0 ? found.gl_pathc : 0));
  ::globfree(&found);
  if (!paths.empty()) return paths;
  const bool is_pattern = pattern.find_first_of("*?[") != std::string::npos;
  throw DataError("data.files: {} '{}' (the current folder is {})",
                  is_pattern ? "no file matches" : "there is no file", pattern,
                  std::filesystem::current_path(ignored).string());
}

/// Kinds of id a file offers besides the chosen one; the index first, then columns by name.
std::vector<GeneIds> other_gene_ids(const AnnDataFile& file, std::string_view matrix, const GeneIds& chosen) {
  std::vector<std::string> columns = file.var_columns(matrix);
  std::sort(columns.begin(), columns.end());
  columns.insert(columns.begin(), "index");
  std::vector<GeneIds> others;
  for (const std::string& column : columns) {
    try {
      GeneIds ids = choose_gene_ids(file, matrix, column);
      // A column such as feature_type repeats a few texts; ids of genes are nearly all different.
      const std::unordered_set<std::string_view> distinct(ids.ids.begin(), ids.ids.end());
      if (ids.source != chosen.source && 10 * distinct.size() >= 9 * ids.ids.size())
        others.push_back(std::move(ids));
    } catch (const DataError&) {
      continue;  // a column of numbers cannot hold ids
    }
  }
  return others;
}

int64_t num_known(const Vocabulary& vocabulary, const GeneIds& ids) {
  return std::count_if(ids.ids.begin(), ids.ids.end(),
                       [&](const std::string& id) { return vocabulary.find(id) != Vocabulary::kUnk; });
}

struct Opened {
  CellSource source;
  std::vector<GeneIds> alternatives;
};

void use(Opened& opened, const GeneIds& ids, std::string_view reason) {
  log::info("[data] {}: gene ids from {} instead of {}: {}", opened.source.name, ids.source,
            opened.source.gene_ids.source, reason);
  opened.source.gene_ids = ids;
}

// The ids that most genes of the vocabulary know.
void match_vocabulary(Opened& opened, const Vocabulary& vocabulary) {
  const GeneIds* best = nullptr;
  int64_t most = num_known(vocabulary, opened.source.gene_ids);
  for (const GeneIds& ids : opened.alternatives) {
    const int64_t known = num_known(vocabulary, ids);
    if (known > most) {
      best = &ids;
      most = known;
    }
  }
  if (best != nullptr) use(opened, *best, fmt::format("{} of them are in the vocabulary", most));
}

// When files differ in kind, a kind that all of them offer.
void agree_on_kind(std::vector<Opened>& files) {
  const auto offers = [](const Opened& opened, GeneIdType type) -> std::optional<GeneIds> {
    if (opened.source.gene_ids.type == type) return opened.source.gene_ids;
    for (const GeneIds& ids : opened.alternatives) {
      if (ids.type == type) return ids;
    }
    return std::nullopt;
  };
  for (const GeneIdType type : {GeneIdType::kEnsembl, GeneIdType::kSymbol}) {
    if (!std::all_of(files.begin(), files.end(),
                     [&](const Opened& file) { return offers(file, type).has_value(); })) {
      continue;
    }
    for (Opened& file : files) {
      if (file.source.gene_ids.type != type) {
        use(file, *offers(file, type), fmt::format("all files have ids of kind {}", name_of(type)));
      }
    }
    return;
  }
}

// data.filter over all files, with what nobody can have meant: a value that no file has.
class CellChoice {
 public:
  explicit CellChoice(const std::string& expression) {
    if (!expression.empty()) filter_ = ObsFilter::parse(expression);
  }
  void apply(const AnnDataFile& file, CellSource& source) {
    if (!filter_) return;
    ObsFilter::Result result = filter_->choose(file);
    const auto num_chosen = std::count(result.chosen.begin(), result.chosen.end(), true);
    log::info("[data] {}: data.filter chooses {} of {} cells", source.name, num_chosen, result.chosen.size());
    num_chosen_ += num_chosen;
    source.chosen = std::move(result.chosen);
    ++num_files_;
    for (const auto& [value, nearest] : result.unknown_values) {
      Unknown& unknown = unknown_[value];
      ++unknown.num_files;
      if (unknown.nearest.empty()) unknown.nearest = nearest;
    }
  }
  void finish() const {
    if (!filter_) return;
    std::string unknown;
    for (const auto& [value, where] : unknown_) {
      if (where.num_files < num_files_) continue;
      unknown += (unknown.empty() ? "" : ", ") + value;
      if (!where.nearest.empty()) unknown += " (did you mean '" + where.nearest + "'?)";
    }
    if (!unknown.empty()) log::warning("[data] data.filter: no file has {}", unknown);
    if (num_chosen_ == 0) {
      throw DataError(
          "data.filter chooses no cell of {} file(s){}; correct it (scrna-train inspect shows obs columns)",
          num_files_, unknown.empty() ? "" : ": no file has " + unknown);
    }
  }

 private:
  struct Unknown {
    int64_t num_files = 0;
    std::string nearest;
  };
  std::optional<ObsFilter> filter_;
  int64_t num_chosen_ = 0, num_files_ = 0;
  std::map<std::string, Unknown> unknown_;  // by value
};

void log_gene_ids(const Opened& opened) {
  const CellSource& source = opened.source;
  log::info("[data] {}: {} genes; {} ids from {}", source.name, source.matrix->num_genes(),
            name_of(source.gene_ids.type), source.gene_ids.source);
  if (!source.gene_ids.removed_prefixes.empty()) {
    log::info("[data] {}: genomes before the names of genes were taken off: {}", source.name,
              fmt::join(source.gene_ids.removed_prefixes, ", "));
  }
}

// After the choice between index and columns, which looks at what the file itself says.
void translate(Opened& opened, const GeneAliases& aliases) {
  if (aliases.size() == 0) return;
  GeneIds& ids = opened.source.gene_ids;
  const int64_t num_translated = aliases.translate(ids);
  log::info("[data] {}: data.gene_map translates {} of {} gene ids", opened.source.name, num_translated,
            ids.ids.size());
  for (GeneIds& other : opened.alternatives) aliases.translate(other);
}

}  // namespace

namespace {

// Whether all values may be counts, without a branch for each, so that the compiler makes vector instructions
// of it: every block of every pass comes through here. Above 2^23 float32 holds no fractions.
bool all_good(const std::vector<float>& values, float tolerance) {
  constexpr float kWithoutFractions = 8388608.0F;
  uint32_t num_bad = 0;
  for (const float value : values) {
    const float small = (value >= 0.0F) & (value < kWithoutFractions) ? value : 0.0F;  // NaN: 0
    const float fraction = std::abs(small - static_cast<float>(static_cast<int32_t>(small + 0.5F)));
    const bool is_good =
        (value >= 0.0F) & (value <= std::numeric_limits<float>::max()) & (fraction <= tolerance);
    num_bad |= is_good ? 0U : 1U;
  }
  return num_bad == 0;
}

}  // namespace

bool CellSource::any_chosen(int64_t first, int64_t count) const {
  if (chosen.empty()) return count > 0;
  const auto begin = chosen.begin() + first;
  return std::find(begin, begin + count, true) != begin + count;
}

void check_values(const CellSource& source, const CellBlock& block) {
  const float tolerance = source.is_counts ? kIntegerTolerance : 1.0F;
  if (all_good(block.values, tolerance)) [[likely]]
    return;
  for (std::size_t i = 0; i < block.values.size(); ++i) {
    const float value = block.values[i];
    const bool is_good = value >= 0 && value <= std::numeric_limits<float>::max() &&
                         std::abs(value - std::round(value)) <= tolerance;
    if (is_good) [[likely]]
      continue;
    const auto cell = std::upper_bound(block.indptr.begin(), block.indptr.end(), static_cast<int64_t>(i)) -
                      block.indptr.begin() - 1 + block.first_cell;
    if (!source.is_chosen(cell)) continue;
    throw DataError(
        "{}: {} holds {} in cell {} (counted from 0), gene '{}'; expected {}. A sample of its cells looked "
        "right: "
        "was it joined from parts that were processed differently?",
        source.name, source.matrix->name(), value, cell,
        source.gene_ids.ids[static_cast<std::size_t>(block.genes[i])],
        source.is_counts ? "raw counts (data.allow_normalized=true accepts fractions)"
                         : "finite numbers of at least 0");
  }
}

std::vector<std::filesystem::path> resolve_files(const std::vector<std::string>& patterns) {
  if (patterns.empty()) {
    throw ConfigError(
        "data.files: expected one or more .h5ad files, got none; for example data.files: [cells.h5ad]");
  }
  std::vector<std::filesystem::path> files;
  std::set<std::filesystem::path> seen;
  for (const std::string& pattern : patterns) {
    for (const std::filesystem::path& path : matches_of(pattern)) {
      std::error_code problem;
      const std::filesystem::path canonical = std::filesystem::weakly_canonical(path, problem);
      if (seen.insert(problem ? path : canonical).second) files.push_back(path);
    }
  }
  return files;
}

std::vector<CellSource> open_sources(const DataConfig& config, const Vocabulary* vocabulary) {
  const GeneAliases aliases = config.gene_map.empty() ? GeneAliases() : GeneAliases::load(config.gene_map);
  CellChoice choice(config.filter);
  std::vector<Opened> files;
  for (const std::filesystem::path& path : resolve_files(config.files)) {
    const AnnDataFile file(path, config.genome);
    const CountsVerdict verdict = judge_counts(file, config.matrix);
    require_counts(file, verdict, config.allow_normalized);
    Opened opened;
    CellSource& source = opened.source;
    source.name = path.string();
    source.matrix = verdict.opened;
    source.is_counts = verdict.is_counts && !config.allow_normalized;
    source.gene_ids = choose_gene_ids(file, verdict.matrix, config.gene_column);
    if (config.gene_column.empty())
      opened.alternatives = other_gene_ids(file, verdict.matrix, source.gene_ids);
    if (!config.heldout_column.empty()) source.groups = file.obs_categories(config.heldout_column);
    if (!config.sampling_column.empty()) source.sampling = file.obs_categories(config.sampling_column);
    log::info("[data] {}: {} cells; matrix {}: {}", source.name, source.matrix->num_cells(), verdict.matrix,
              verdict.reason);
    if (!verdict.is_counts) {
      log::warning("[data] {}: {} does not hold raw counts; used because data.allow_normalized is true",
                   source.name, verdict.matrix);
    }
    log_gene_ids(opened);
    translate(opened, aliases);
    choice.apply(file, source);
    files.push_back(std::move(opened));
  }
  choice.finish();
  if (vocabulary != nullptr) {
    for (Opened& file : files) match_vocabulary(file, *vocabulary);
  } else if (std::any_of(files.begin(), files.end(), [&](const Opened& file) {
               return file.source.gene_ids.type != files[0].source.gene_ids.type;
             })) {
    agree_on_kind(files);
  }
  std::vector<CellSource> sources;
  for (Opened& file : files) sources.push_back(std::move(file.source));
  return sources;
}

}  // namespace scrna::data
