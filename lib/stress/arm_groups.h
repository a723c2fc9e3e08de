// Arms beside their peers: what belongs together in a table or figure. A group holds arms that differ in
// attention, learning rate and seed alone, so that within it softmax and sigmoid compare; seeds are merged to
// their spread, and each attention's ladder of learning rates is asked where something happens first.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lib/stress/claims.h"

namespace scrna::stress {

/// All pointers are into the arms that groups_of was given.
struct ArmGroup {
  std::string size;       // "width 256", "context 2048": of what differs between the groups; may be empty
  std::string treatment;  // "no clipping", "clipped at 1, QK-norm": always said
  bool is_plain = true;   // the paper's stress test: no clipping, no QK-norm, bias -log n
  std::vector<const ArmData*> arms;

  [[nodiscard]] std::string name() const;
  /// Those of one attention, ended or not.
  [[nodiscard]] std::vector<const ArmData*> of(bool is_sigmoid) const;
  /// Of all its arms, ascending.
  [[nodiscard]] std::set<double> rates() const;
};

/// In the order in which their first arms stand.
std::vector<ArmGroup> groups_of(const std::vector<ArmData>& arms);

/// Finite numbers of several seeds; those that are not finite are counted.
struct Spread {
  double least = 0, median = 0, most = 0;  // NaN when count is 0
  std::size_t count = 0;
  std::size_t num_not_finite = 0;
};
Spread spread_of(const std::vector<double>& values);
/// One number; of two both, "9.341 – 9.343"; of more "9.342 (9.341 – 9.343)"; "–" of none.
std::string text_of(const Spread& spread, const std::function<std::string(double)>& number);

/// For each seed the lowest learning rate at which an ended arm of that attention did something; nothing when
/// none did. Only rates that both attentions have ended with that seed are looked at: a ladder that is still
/// climbed proves nothing.
struct FirstRates {
  std::optional<double> softmax, sigmoid;
  std::set<double> rates;  // that were looked at

  enum class Earlier { kSoftmax, kSigmoid, kSame, kNeither };
  [[nodiscard]] Earlier earlier() const;
};
/// Seeds by their numbers: 2 before 10.
struct SeedOrder {
  bool operator()(const std::string& a, const std::string& b) const {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  }
};
using FirstRatesBySeed = std::map<std::string, FirstRates, SeedOrder>;
FirstRatesBySeed first_rates(const ArmGroup& group,
                             const std::function<bool(const ArmData&)>& happened);

/// How many seeds of how many ladders: "softmax in 3, sigmoid in 1, ..." is made of it.
struct EarlierCounts {
  int softmax = 0, sigmoid = 0, same = 0, neither = 0;
  [[nodiscard]] int all() const { return softmax + sigmoid + same + neither; }
  void add(const FirstRatesBySeed& firsts);
};

}  // namespace scrna::stress
