// Where are the raw counts? People store them in X, raw/X or a layer, and log-normalised or scaled values in
// the same places. Training on the wrong ones fails silently, so the choice is made by looking at the
// numbers, said aloud, and refused when nothing looks like counts.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/data/anndata.h"

namespace scrna::data {

/// What a sample of a matrix's values looks like.
struct ValueSurvey {
  int64_t num_values = 0;  // non-zero values looked at
  int64_t num_non_integer = 0;
  int64_t num_negative = 0;
  int64_t num_not_finite = 0;
  double maximum = 0;
  bool is_counts = false;
  std::string description;  // "integers from 1 to 2,345", "fractions up to 8.2: log-normalised" ...
};

struct MatrixVerdict {
  std::string matrix;
  ValueSurvey survey;
};

struct CountsVerdict {
  std::string matrix;  // the chosen one
  bool is_counts = false;
  std::string reason;                     // one sentence: why this one
  std::vector<MatrixVerdict> candidates;  // all that were looked at, best first
  std::shared_ptr<const CountMatrix>
      opened;  // the chosen one: a CSC matrix, once read, need not be turned again
};

/// Counts stored as float after a detour through another program carry rounding noise; more is not a count.
inline constexpr float kIntegerTolerance = 1e-4F;

/// Looks at blocks of cells spread over the matrix (about 2,000 cells).
ValueSurvey survey_values(const CountMatrix& matrix);

/// True for what data.allow_normalized lets pass: values, none of them negative or not finite.
bool can_be_accepted(const ValueSurvey& survey);

/// choice "auto": the first of layers/counts and the like, raw/X, X, other layers that holds counts; when
/// none does, X (without one the first present) with is_counts = false. Otherwise the named matrix. Throws
/// DataError for a name that does not exist.
CountsVerdict judge_counts(const AnnDataFile& file, std::string_view choice);

/// Throws DataError when the verdict is not counts and allow_normalized is false: what was found, where, what
/// to do.
void require_counts(const AnnDataFile& file, const CountsVerdict& verdict, bool allow_normalized);

}  // namespace scrna::data
