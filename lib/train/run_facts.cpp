#include "lib/train/run_facts.h"

#include <nlohmann/json.hpp>

#include <fmt/ranges.h>

#include "lib/train/device_name.h"

namespace scrna::train {

std::string facts_of(const TrainConfig& config, const PreparedRun& run, int64_t num_ranks) {
  return nlohmann::ordered_json{{"device", run.device.str()},
                                {"device_name", device_name(run.device)},
                                {"compute_type", c10::toString(run.compute_type)},
                                {"attention", run.encoder->describe_attention()},
                                {"processes", num_ranks},
                                {"parameters", run.encoder->parameters().num_elements()},
                                {"vocabulary", run.corpus->vocabulary().size()},
                                {"longest_cell_tokens", run.corpus->longest_cell_tokens()},
                                {"training_cells", run.corpus->num_training_cells()},
                                {"heldout_cells", run.corpus->num_heldout_cells()},
                                {"data", fmt::format("{}", fmt::join(config.data.files, ", "))}}
             .dump(1) +
         "\n";
}

}  // namespace scrna::train
