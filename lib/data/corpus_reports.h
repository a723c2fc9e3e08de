// The reports of a corpus as JSON, for the cache, which spares the pass that makes them.
#pragma once

#include <string>
#include <vector>

#include "lib/data/corpus.h"

namespace scrna::data {

std::string reports_to_json(const std::vector<SourceReport>& reports);
/// Throws nlohmann::json::exception for what reports_to_json() does not write.
std::vector<SourceReport> reports_from_json(const std::string& text);

}  // namespace scrna::data
