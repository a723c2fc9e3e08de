#include "lib/data/pack_plan.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "lib/core/error.h"

namespace scrna::data {
namespace {

struct Pack {
  int64_t tokens = 0;
  std::vector<int32_t> cells;

  void add(int32_t cell, int32_t length) {
    cells.push_back(cell);
    tokens += length;
  }
};
using Packs = std::vector<Pack>;

// Packs by load: first the emptiest, equal ones by index.
using ByLoad = std::set<std::pair<int64_t, std::size_t>>;

ByLoad by_load(const Packs& packs) {
  ByLoad loads;
  for (std::size_t i = 0; i < packs.size(); ++i) loads.emplace(packs[i].tokens, i);
  return loads;
}

// One assignment problem: cells that fit into a pack, longest first, equal ones in their order.
class Planner {
 public:
  Planner(std::span<const int32_t> lengths, std::vector<int32_t> cells, int64_t budget)
      : lengths_(lengths), in_order_(std::move(cells)), budget_(budget) {
    longest_first_ = in_order_;
    sort_longest_first(longest_first_);
  }

  [[nodiscard]] Packs plan() const {
    if (in_order_.empty()) return {};
    Packs fewest = best_fit();
    if (Packs greedy = as_they_come(); greedy.size() < fewest.size()) fewest = std::move(greedy);
    for (std::size_t count = fewest.size(); count > 0; --count) {
      Packs even = into_emptiest(longest_first_, count);
      const auto fits = [this](const Pack& pack) { return pack.tokens <= budget_; };
      if (!std::all_of(even.begin(), even.end(), fits)) break;
      fewest = std::move(even);
    }
    even_out(fewest);
    return fewest;
  }

 private:
  [[nodiscard]] int32_t length(int32_t cell) const { return lengths_[static_cast<std::size_t>(cell)]; }

  void sort_longest_first(std::vector<int32_t>& cells) const {
    std::sort(cells.begin(), cells.end(), [this](int32_t a, int32_t b) {
      return length(a) != length(b) ? length(a) > length(b) : a < b;
    });
  }

  // LPT: each cell into the emptiest of `count` packs, whatever the budget.
  [[nodiscard]] Packs into_emptiest(const std::vector<int32_t>& cells, std::size_t count) const {
    Packs packs(count);
    ByLoad loads = by_load(packs);
    for (const int32_t cell : cells) {
      auto emptiest = loads.extract(loads.begin());
      Pack& pack = packs[emptiest.value().second];
      pack.add(cell, length(cell));
      emptiest.value().first = pack.tokens;
      loads.insert(std::move(emptiest));
    }
    return packs;
  }

  // Best fit decreasing: each cell into the fullest pack that has room.
  [[nodiscard]] Packs best_fit() const {
    Packs packs;
    ByLoad loads;
    for (const int32_t cell : longest_first_) {
      auto fullest = loads.upper_bound({budget_ - length(cell), packs.size()});
      std::size_t index = packs.size();
      if (fullest == loads.begin()) {
        packs.emplace_back();
      } else {
        index = std::prev(fullest)->second;
        loads.erase(std::prev(fullest));
      }
      packs[index].add(cell, length(cell));
      loads.emplace(packs[index].tokens, index);
    }
    return packs;
  }

  [[nodiscard]] Packs as_they_come() const {
    Packs packs(1);
    for (const int32_t cell : in_order_) {
      if (packs.back().tokens + length(cell) > budget_) packs.emplace_back();
      packs.back().add(cell, length(cell));
    }
    return packs;
  }

  // Deals the cells of the fullest and the emptiest pack out anew between the two, as long as that helps.
  void even_out(Packs& packs) const {
    if (packs.size() < 2) return;
    ByLoad loads = by_load(packs);
    for (std::size_t round = 0; round < 2 * packs.size(); ++round) {
      const auto [least, emptiest] = *loads.begin();
      const auto [most, fullest] = *loads.rbegin();
      std::vector<int32_t> cells = packs[fullest].cells;
      cells.insert(cells.end(), packs[emptiest].cells.begin(), packs[emptiest].cells.end());
      sort_longest_first(cells);
      Packs two = into_emptiest(cells, 2);
      if (std::max(two[0].tokens, two[1].tokens) >= most) return;
      loads.erase({least, emptiest});
      loads.erase({most, fullest});
      packs[fullest] = std::move(two[0]);
      packs[emptiest] = std::move(two[1]);
      for (const std::size_t index : {fullest, emptiest}) loads.emplace(packs[index].tokens, index);
    }
  }

  std::span<const int32_t> lengths_;
  std::vector<int32_t> in_order_, longest_first_;
  int64_t budget_;
};

}  // namespace

std::vector<std::vector<int32_t>> plan_packs(std::span<const int32_t> lengths,
                                             int64_t tokens_per_micro_batch) {
  SCRNA_CHECK(tokens_per_micro_batch > 0, "a pack of {} tokens", tokens_per_micro_batch);
  std::vector<std::vector<int32_t>> packs;
  std::vector<int32_t> fitting;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    SCRNA_CHECK(lengths[i] > 0, "cell {} of the step has no token", i);
    const auto cell = static_cast<int32_t>(i);
    if (lengths[i] <= tokens_per_micro_batch) {
      fitting.push_back(cell);
    } else {
      packs.push_back({cell});
    }
  }
  for (Pack& pack : Planner(lengths, std::move(fitting), tokens_per_micro_batch).plan()) {
    std::sort(pack.cells.begin(), pack.cells.end());
    packs.push_back(std::move(pack.cells));
  }
  std::sort(packs.begin(), packs.end(), [](const auto& a, const auto& b) { return a.front() < b.front(); });
  return packs;
}

}  // namespace scrna::data
