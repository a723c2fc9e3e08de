// How often each training cell stands in an epoch when groups of cells (of an obs column, or the files) are
// to be seen more or less often than they are large. A group of n of the N training cells gets the part
//   p ~ weight * n^(1/T)      (T = data.sampling_temperature; 1/T is the exponent alpha of multilingual
//   models)
// of an epoch, which stays N cells long: q = round(p N) (largest remainders), the same in every epoch. Each
// cell of the group stands q / n times in it, rounded down, and q mod n of them once more, drawn without
// replacement by (seed, epoch). So an epoch has no noise in its groups, cells of a group differ by at most
// one, and all of it is a pure function of (seed, epoch). Copies of a cell stand in the same window of the
// shuffle, since its block is read once. Rejected: drawing each place by itself, which reads single rows and
// leaves out 37 % of the cells of an epoch.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace scrna::data {

class Corpus;
struct CellRange;

struct SamplingGroup {
  std::string name;         // value of the column, "(missing)", or the file
  int64_t cells = 0;        // training cells
  double weight = 1;        // of data.sampling_weights
  int64_t epoch_cells = 0;  // places in an epoch
};

/// "blood=2" -> {"blood", 2}; the last '=' counts. Throws ConfigError naming `setting`: no '=', a weight that
/// is no finite number of at least 0, a name given twice.
std::vector<std::pair<std::string, double>> parse_sampling_weights(const std::vector<std::string>& texts,
                                                                   const std::string& setting);

/// Fills in epoch_cells, whose sum is the sum of cells. Throws DataError when all weights are 0 or a cell
/// would be drawn more than 65,535 times an epoch.
void share_out_epoch(std::vector<SamplingGroup>& groups, double temperature);

/// The table that a run keeps: group, cells, weight, epoch_cells, and how often an epoch has each cell on
/// average.
std::string sampling_table(const std::vector<SamplingGroup>& groups);

/// How often each training cell stands in one epoch.
class EpochSample {
 public:
  /// ranges: of the training cells, in file order. The corpus must have sampling groups.
  EpochSample(const Corpus& corpus, std::span<const CellRange> ranges, uint64_t seed, int64_t epoch);

  /// [training cells of the range]
  [[nodiscard]] std::span<const uint16_t> times(std::size_t range) const {
    return std::span(times_).subspan(begin_[range], begin_[range + 1] - begin_[range]);
  }
  /// Places of the range in the epoch.
  [[nodiscard]] int64_t num_places(std::size_t range) const;

 private:
  std::vector<uint16_t> times_;     // [training cells]
  std::vector<std::size_t> begin_;  // [ranges + 1]
};

}  // namespace scrna::data
