#include "lib/data/counts_verdict.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "lib/core/error.h"

namespace scrna::data {
namespace {

constexpr int64_t kNumBlocks = 8;
constexpr int64_t kCellsPerBlock = 64;

bool is_named_like_counts(const std::string& name) {
  std::string lower = name;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower == "layers/counts" || lower == "layers/raw_counts" || lower == "layers/raw" ||
         lower == "layers/count" || lower == "layers/umi" || lower == "layers/umis" ||
         lower == "layers/raw_count";
}

int rank_of(const std::string& name) {
  if (name == "layers/counts") return 0;
  if (is_named_like_counts(name)) return 1;
  if (name == "raw/X") return 2;
  if (name == "X") return 3;
  return 4;
}

std::string describe(const ValueSurvey& survey) {
  if (survey.num_values == 0) return "nothing but zeros";
  if (survey.num_not_finite > 0) return "NaN or infinite values";
  if (survey.num_negative > 0)
    return fmt::format("negative values (centred or scaled data), maximum {:.3g}", survey.maximum);
  if (survey.num_non_integer > 0) {
    const double percent =
        100.0 * static_cast<double>(survey.num_non_integer) / static_cast<double>(survey.num_values);
    if (percent < 1) {  // no normalisation leaves so many numbers whole
      return fmt::format(
          "fractions among whole numbers ({} of {} values), maximum {:.3g}: joined from parts that were "
          "processed differently?",
          survey.num_non_integer, survey.num_values, survey.maximum);
    }
    return fmt::format(
        "fractions ({:.1f} % of the values), maximum {:.3g}: {}", percent, survey.maximum,
        survey.maximum < 20 ? "looks log-normalised" : "looks normalised or corrected, not logarithmic");
  }
  return fmt::format("whole numbers up to {:.0f}", survey.maximum);
}

}  // namespace

ValueSurvey survey_values(const CountMatrix& matrix) {
  ValueSurvey survey;
  const int64_t num_cells = matrix.num_cells();
  const int64_t stride = std::max<int64_t>(kCellsPerBlock, num_cells / kNumBlocks);
  for (int64_t first = 0; first < num_cells; first += stride) {
    const CellBlock block = matrix.read(first, std::min(kCellsPerBlock, num_cells - first));
    for (const float value : block.values) {
      ++survey.num_values;
      if (!std::isfinite(value)) {
        ++survey.num_not_finite;
        continue;
      }
      if (value < 0) ++survey.num_negative;
      if (std::abs(value - std::round(value)) > kIntegerTolerance) ++survey.num_non_integer;
      survey.maximum = std::max(survey.maximum, static_cast<double>(value));
    }
  }
  survey.is_counts = survey.num_values > 0 && survey.num_not_finite == 0 && survey.num_negative == 0 &&
                     survey.num_non_integer == 0;
  survey.description = describe(survey);
  return survey;
}

bool can_be_accepted(const ValueSurvey& survey) {
  return survey.num_values > 0 && survey.num_negative == 0 && survey.num_not_finite == 0;
}

CountsVerdict judge_counts(const AnnDataFile& file, std::string_view choice) {
  CountsVerdict verdict;
  if (choice != "auto") {
    verdict.matrix = std::string(choice);
    verdict.opened = file.open_matrix(choice);
    verdict.candidates.push_back({verdict.matrix, survey_values(*verdict.opened)});
    verdict.is_counts = verdict.candidates[0].survey.is_counts;
    verdict.reason = fmt::format("chosen by data.matrix; holds {}", verdict.candidates[0].survey.description);
    return verdict;
  }
  std::vector<std::string> names = file.matrix_names();
  std::stable_sort(names.begin(), names.end(),
                   [](const std::string& a, const std::string& b) { return rank_of(a) < rank_of(b); });
  for (const std::string& name : names) {
    std::shared_ptr<const CountMatrix> matrix;
    try {
      matrix = file.open_matrix(name);
      verdict.candidates.push_back({name, survey_values(*matrix)});
    } catch (const DataError& problem) {
      // A damaged or unsupported matrix is fatal when it is the only one; otherwise another may hold the
      // counts.
      if (names.size() == 1) throw;
      verdict.candidates.push_back(
          {name, ValueSurvey{.description = fmt::format("unreadable ({})", problem.what())}});
    }
    if (verdict.candidates.back().survey.is_counts) {
      verdict.matrix = name;
      verdict.opened = std::move(matrix);
      verdict.is_counts = true;
      verdict.reason = fmt::format("holds {}", verdict.candidates.back().survey.description);
      for (const MatrixVerdict& other : verdict.candidates) {
        if (other.matrix != name)
          verdict.reason += fmt::format("; {} holds {}", other.matrix, other.survey.description);
      }
      return verdict;
    }
  }
  verdict.matrix = std::find(names.begin(), names.end(), "X") != names.end() ? "X" : names.front();
  try {
    verdict.opened = file.open_matrix(verdict.matrix);
  } catch (const DataError&) {  // the reason below says so; require_counts() refuses it
  }
  verdict.reason = "no matrix of the file holds raw counts";
  for (const MatrixVerdict& other : verdict.candidates)
    verdict.reason += fmt::format("; {} holds {}", other.matrix, other.survey.description);
  return verdict;
}

void require_counts(const AnnDataFile& file, const CountsVerdict& verdict, bool allow_normalized) {
  if (verdict.is_counts || allow_normalized) {
    for (const MatrixVerdict& candidate : verdict.candidates) {
      if (candidate.matrix == verdict.matrix && !can_be_accepted(candidate.survey)) {
        throw DataError("{}: {} holds {}; that cannot be ranked as expression", file.path().string(),
                        verdict.matrix, candidate.survey.description);
      }
    }
    return;
  }
  const bool has_alternative =
      std::any_of(verdict.candidates.begin(), verdict.candidates.end(), [&](const MatrixVerdict& candidate) {
        return candidate.matrix == verdict.matrix && can_be_accepted(candidate.survey);
      });
  throw DataError(
      "{}: expected raw counts, but {}. Use a file with raw counts in X, raw/X or layers/counts{}",
      file.path().string(), verdict.reason,
      has_alternative
          ? ", name the matrix with --set data.matrix=..., or accept these values as they are with --set "
            "data.allow_normalized=true"
          : ", as it was before these values were computed, or name the matrix with --set data.matrix=...");
}

}  // namespace scrna::data
