// The report of a table: where each attention first comes to grief, verdicts, what the learning rate does,
// the paper's three panels for our arms, seeds merged, arms one by one, layers over time, cost and settings;
// and, of a table that is not done, which arms are missing.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/report/page.h"
#include "lib/stress/claims.h"

namespace scrna::stress {

struct StressReport {
  std::string title, description;
  std::vector<std::pair<std::string, std::string>> machine;   // "GPU" -> "NVIDIA H200"
  std::string command;                                        // that made it
  std::vector<ArmData> arms;                                  // that have begun
  std::vector<std::pair<std::string, std::string>> failures;  // arm -> its last words
  std::vector<std::string> planned;                           // names of all arms of the table
};

/// How far an arm is that left nothing behind.
inline constexpr const char* kNotBegun = "not begun";

/// An arm of the table that has not ended, and how far it is: "not begun", "at step 120 of 2000".
std::vector<std::pair<std::string, std::string>> missing_arms(const StressReport& table);

report::Page stress_report(const StressReport& table);

}  // namespace scrna::stress
