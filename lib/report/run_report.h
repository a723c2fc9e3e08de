// The report of one or several runs: `scrna-train report`.
#pragma once

#include <filesystem>
#include <vector>

#include "lib/report/page.h"
#include "lib/report/run_data.h"

namespace scrna::report {

/// Everything about these runs. Of a single run more is drawn by layer. runs must not be empty.
Page run_report(const std::vector<RunData>& runs);

/// The parts that the report of a stress table shares.
Table summary_table(const std::vector<RunData>& runs);
Table divergence_table(const std::vector<RunData>& runs);
void add_speed(const std::vector<RunData>& runs, Page& page);
void add_settings(const std::vector<RunData>& runs, Page& page);

}  // namespace scrna::report
