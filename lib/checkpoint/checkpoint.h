// Checkpoints: a folder that is whole or absent.
//
//   checkpoints/step-00000500/{model.safetensors, optimizer.safetensors, state.json, manifest.json}
//   checkpoints/latest -> step-00000500
//
// Written under a temporary name, every file synced, the manifest (sizes and SHA-256 of the others) last, then the
// folder is renamed and `latest` re-pointed by a rename. Whatever moment a kill or a full disk chooses, the previous
// checkpoint stays good and a half-written one is never found. lib/checkpoint/README.md has the format.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "lib/checkpoint/safetensors.h"

namespace scrna::checkpoint {

struct Contents {
  Safetensors model;
  Safetensors optimizer;
  std::string state;  // state.json, text
};

/// "step-00000500"
std::string folder_name(int64_t step);

/// Saves `contents` as checkpoint `step` below `root` (created if needed), re-points `latest`, then removes all but
/// keep_last (at least 1) checkpoints, this one and the newest others, and what crashed saves left behind. An existing
/// checkpoint of that step is replaced. Returns its folder. Throws DataError (disk full ...); then `root` is as before.
/// A file system without links keeps no `latest`: a warning says so.
std::filesystem::path save(const std::filesystem::path& root, int64_t step, const Contents& contents, int64_t keep_last);

/// Verifies the manifest (presence, size, SHA-256) and reads everything. Throws CheckpointError naming the bad file.
Contents load(const std::filesystem::path& folder);

/// What a trained model is made of: contents with an empty optimizer, whose file is neither read nor verified.
/// Throws CheckpointError naming the bad file.
Contents load_without_optimizer(const std::filesystem::path& folder);

/// Steps for which a finished checkpoint folder exists below `root`, ascending.
std::vector<int64_t> steps_in(const std::filesystem::path& root);

/// The checkpoint that was saved last, where `latest` points, or the newest one without such a link. When it does not
/// verify, the newest that does, with a warning. Throws CheckpointError if none does.
std::filesystem::path find_latest(const std::filesystem::path& root);

}  // namespace scrna::checkpoint
