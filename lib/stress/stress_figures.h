// The figures of a stress report. Softmax is always orange and sigmoid blue; where curves differ in learning
// rate, the colour is the rate, from cold to hot, and the two attentions stand side by side on the same axis.
#pragma once

#include <string>
#include <vector>

#include "lib/report/page.h"
#include "lib/stress/arm_groups.h"

namespace scrna::stress {

/// Indices of report::Series::colour, the same in all reports.
inline constexpr int kSigmoidColour = 0, kSoftmaxColour = 1;

/// The paper's three panels (loss, gradient norm, score of layer 0): up to eight arms in one figure each,
/// named; more as a pair of figures for each group. The group with the largest jump is open, the others
/// folded away.
void add_panels(const std::vector<ArmData>& arms, const std::vector<ArmGroup>& groups, report::Page& page);
/// In rate_figures.cpp: final loss, largest jump and largest score over the learning rate, a figure each for
/// every size, of arms that have ended: the median of the seeds and a band from the least to the most.
/// Nothing where there is one rate.
void add_rates(const std::vector<ArmGroup>& groups, report::Page& page);
/// Norms and scores by layer of one arm of each attention: the one that diverged, or jumped most.
void add_layers(const std::vector<ArmData>& arms, report::Page& page);

}  // namespace scrna::stress
