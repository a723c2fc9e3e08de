// metrics.jsonl: one JSON object a line, three kinds of them, told apart by their keys (lib/train/README.md). Plain lines
// that pandas reads with read_json(lines=True) and `tail -f` shows; every other view (report, TensorBoard) is made from
// them. Numbers that are not finite are written as null, since JSON has no other word for them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "lib/eval/heldout_loss.h"
#include "lib/train/meters.h"
#include "lib/train/step.h"

namespace scrna::train {

/// The line of an optimizer step, without newline. layer_names: as ParameterSet::layer_names(); reading: of this step.
std::string step_line(const StepReport& report, const std::vector<std::string>& layer_names,
                      const MeterReading& reading);
/// The line of a held-out evaluation after `step` optimizer steps.
std::string heldout_line(int64_t step, const eval::HeldoutLoss& heldout, double seconds);

/// The line of a rollback to the state after `step` steps.
std::string rollback_line(int64_t step, int64_t from_step, int64_t data_offset, std::string_view reason);

/// Prepares metrics.jsonl for going on after `step` steps: lines of later steps, which the resumed run writes again,
/// move to metrics.superseded.jsonl, as does a last line that a crash cut off. Nothing is deleted. Returns the number of
/// lines moved.
int64_t rewind_metrics(const std::filesystem::path& metrics, int64_t step);

}  // namespace scrna::train
