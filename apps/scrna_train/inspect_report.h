// The two forms of an inspection: text for people, JSON for programs. Both end with the same judgement.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "lib/data/inspect.h"

namespace scrna::app {

/// Whether a model can be trained on the file, why (or with what care), and the command that does it.
struct Suitability {
  std::string verdict;             // "suitable", "suitable with care", "not suitable"
  std::vector<std::string> notes;  // sentences without a full stop, the gravest first
  std::string next_command;        // empty when nothing can be done with the program
};
Suitability judge_suitability(const data::InspectReport& report);

std::string inspect_text(const data::InspectReport& report);
nlohmann::ordered_json inspect_json(const data::InspectReport& report);

}  // namespace scrna::app
