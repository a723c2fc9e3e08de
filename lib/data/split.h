// Which cells are held out of training: single cells by a hash of (seed, cell id), which no other cell
// influences; or whole groups, the donors of an obs column or the files: in the order of their hash, each
// that still fits into the wanted part of the cells, and the smallest group when none fits.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <unordered_set>

namespace scrna::data {

/// Uniform in [0, 1), fixed for (seed, cell).
double split_position(uint64_t seed, uint64_t cell_id);

/// Groups to hold out, given the usable cells of each: at least one, never all (fraction < 1). Cells without
/// a group are not listed and stay in training. Throws DataError when there are fewer than two groups;
/// `setting` ("data.heldout_column"), `unit` ("groups of 'donor'", "files") and `advice` (what to do instead) are
/// for its message.
std::unordered_set<std::string> choose_heldout_groups(
    const std::unordered_map<std::string, int64_t>& cells_of_group, double fraction, uint64_t seed,
    const std::string& setting, const std::string& unit, const std::string& advice);

}  // namespace scrna::data
