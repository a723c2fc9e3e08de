#include "lib/data/split.h"

#include <algorithm>
#include <tuple>
#include <vector>

#include "lib/core/error.h"
#include "lib/core/random.h"

namespace scrna::data {
namespace {

// FNV-1a, well mixed: the label's place in the order of groups.
uint64_t hash_of(const std::string& label, uint64_t seed) {
  uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char character : label) hash = (hash ^ static_cast<unsigned char>(character)) * 0x100000001b3ULL;
  return RandomStream(seed, RandomPurpose::kSplit, hash, 1).bits(0);
}

}  // namespace

double split_position(uint64_t seed, uint64_t cell_id) {
  return RandomStream(seed, RandomPurpose::kSplit, cell_id, 0).uniform(0);
}

std::unordered_set<std::string> choose_heldout_groups(
    const std::unordered_map<std::string, int64_t>& cells_of_group, double fraction, uint64_t seed,
    const std::string& setting, const std::string& unit, const std::string& advice) {
  if (cells_of_group.size() < 2) {
    throw DataError(
        "{}: there is {} of the {} with cells, over all files; holding out whole ones needs at least two. {}",
        setting, cells_of_group.size(), unit, advice);
  }
  std::vector<std::tuple<uint64_t, std::string, int64_t>> groups;
  int64_t num_cells = 0;
  for (const auto& [label, cells] : cells_of_group) {
    groups.emplace_back(hash_of(label, seed), label, cells);
    num_cells += cells;
  }
  std::sort(groups.begin(), groups.end());
  std::unordered_set<std::string> chosen;
  double room = fraction * static_cast<double>(num_cells);
  for (const auto& [hash, label, cells] : groups) {
    if (static_cast<double>(cells) > room) continue;
    chosen.insert(label);
    room -= static_cast<double>(cells);
  }
  if (chosen.empty()) {
    const auto smallest = std::min_element(groups.begin(), groups.end(), [](const auto& a, const auto& b) {
      return std::get<int64_t>(a) < std::get<int64_t>(b);
    });
    chosen.insert(std::get<std::string>(*smallest));
  }
  return chosen;
}

}  // namespace scrna::data
