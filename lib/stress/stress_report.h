// The report of a table: verdicts first, then the paper's three panels for our arms, what the learning rate does, where runs
// diverged, layers over time, cost and settings.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/report/page.h"
#include "lib/stress/claims.h"

namespace scrna::stress {

struct StressReport {
  std::string title, description;
  std::vector<std::pair<std::string, std::string>> machine;  // "GPU" -> "NVIDIA H200"
  std::string command;                                       // that made it
  std::vector<ArmData> arms;                                 // that have begun
  std::vector<std::pair<std::string, std::string>> failures;  // arm -> its last words
  std::size_t num_planned = 0;
};

report::Page stress_report(const StressReport& table);

}  // namespace scrna::stress
