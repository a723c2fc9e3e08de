// What `bench attention` prints and writes: a table whose lines appear as rows are done, and JSON.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "lib/bench/attention_bench.h"
#include "lib/bench/machine.h"

namespace scrna::app {

/// Machine, units, and the names of the columns.
std::string attention_table_head(const bench::AttentionBench& attention, const bench::Machine& machine);
std::string attention_table_line(const bench::AttentionBench& attention,
                                 const bench::AttentionRowResult& result);
/// Legend, and why cells are empty.
std::string attention_table_foot(const bench::AttentionBench& attention,
                                 const std::vector<bench::AttentionRowResult>& results);

nlohmann::ordered_json attention_json(const bench::AttentionBench& attention, const bench::Machine& machine,
                                      const std::vector<bench::AttentionRowResult>& results);

}  // namespace scrna::app
