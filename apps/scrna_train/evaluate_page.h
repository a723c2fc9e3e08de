// The results of `evaluate` as a page (lib/report): for each data set the tables (groups of seeds, then every embedding), UMAP
// pictures by label and by batch, the Leiden sweep, and the matrix of MMD between all pairs of labels.
#pragma once

#include "lib/eval/evaluation_files.h"
#include "lib/report/page.h"

namespace scrna::app {

/// The report must have at least one data set.
report::Page evaluation_page(const eval::EvaluationReport& report);

}  // namespace scrna::app
