// The tables of a stress report. A table of 144 arms is not read line by line: first where each attention
// first comes to grief, then every learning rate with its seeds merged, grouped by size and treatment; the
// arms one by one last.
#pragma once

#include <string>
#include <vector>

#include "lib/report/page.h"
#include "lib/stress/arm_groups.h"

namespace scrna::stress {

/// "Lowest learning rate at which": two rows a group, for a jump of the gradient norm and for divergence.
report::Table first_rates_table(const std::vector<ArmGroup>& groups);
/// The same in a sentence, of the unclipped groups (or of all when there are none): what the reader came for.
std::string first_rates_words(const std::vector<ArmGroup>& groups);
/// A row for each group, learning rate and attention, of arms that have ended.
report::Table merged_table(const std::vector<ArmGroup>& groups);
report::Table arms_table(const std::vector<ArmData>& arms);
/// Settings in which the arms differ, one row each with all values.
report::Table axes_table(const std::vector<ArmData>& arms);

}  // namespace scrna::stress
