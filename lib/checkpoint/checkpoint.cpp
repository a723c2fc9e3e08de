#include "lib/checkpoint/checkpoint.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/log.h"

namespace scrna::checkpoint {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kPrefix = "step-";
constexpr const char* kPartialPrefix = "partial-";
constexpr const char* kManifest = "manifest.json";
constexpr std::array kFiles = {"model.safetensors", "optimizer.safetensors", "state.json"};
constexpr int kFormatVersion = 1;

void rename_or_throw(const fs::path& from, const fs::path& to) {
  std::error_code problem;
  fs::rename(from, to, problem);
  if (problem) throw DataError("{}: cannot put in place: {}", to.string(), problem.message());
}

// Removes a folder by first taking away its finished name, so that a crash half-way leaves no believable checkpoint.
void remove_folder(const fs::path& root, const fs::path& folder) {
  std::error_code ignored;
  const fs::path doomed = root / (kPartialPrefix + folder.filename().string() + ".removed");
  fs::rename(folder, doomed, ignored);
  fs::remove_all(ignored ? folder : doomed, ignored);
}

void point_latest_at(const fs::path& root, const std::string& name) {
  const fs::path temporary = root / (std::string(kPartialPrefix) + "latest");
  std::error_code problem;
  fs::remove(temporary, problem);
  fs::create_symlink(name, temporary, problem);
  if (problem) throw DataError("{}: cannot create the link: {}", temporary.string(), problem.message());
  rename_or_throw(temporary, root / "latest");
}

void remove_old(const fs::path& root, int64_t keep_last) {
  std::vector<int64_t> steps = steps_in(root);
  for (std::size_t i = 0; i + static_cast<std::size_t>(keep_last) < steps.size(); ++i) remove_folder(root, root / folder_name(steps[i]));
  for (const fs::directory_entry& entry : fs::directory_iterator(root)) {
    if (entry.path().filename().string().starts_with(kPartialPrefix)) {
      std::error_code ignored;
      fs::remove_all(entry.path(), ignored);
    }
  }
}

void verify(const fs::path& folder) {
  const fs::path path = folder / kManifest;
  if (!fs::exists(path)) throw CheckpointError("{}: not a finished checkpoint: it has no {}", folder.string(), kManifest);
  const Json manifest = Json::parse(read_file(path), nullptr, false);
  if (!manifest.is_object() || manifest.value("format_version", 0) != kFormatVersion || !manifest.contains("files")) {
    throw CheckpointError("{}: damaged, or written by another version of the format", path.string());
  }
  for (const char* name : kFiles) {
    const fs::path file = folder / name;
    const Json& entry = manifest["files"].contains(name) ? manifest["files"][name] : Json();
    if (!entry.is_object() || !fs::exists(file)) throw CheckpointError("{}: missing from the checkpoint", file.string());
    if (entry.value("bytes", uint64_t{0}) != fs::file_size(file) || entry.value("sha256", "") != sha256_of_file(file)) {
      throw CheckpointError("{}: damaged: its size or SHA-256 is not what {} says; resume from another checkpoint",
                            file.string(), kManifest);
    }
  }
}

}  // namespace

std::string folder_name(int64_t step) { return fmt::format("{}{:08}", kPrefix, step); }

fs::path save(const fs::path& root, int64_t step, const Contents& contents, int64_t keep_last) {
  std::error_code problem;
  fs::create_directories(root, problem);
  if (problem) throw DataError("{}: cannot create the folder: {}", root.string(), problem.message());
  const fs::path target = root / folder_name(step);
  const fs::path partial = root / (kPartialPrefix + folder_name(step));
  fs::remove_all(partial, problem);
  fs::create_directory(partial, problem);
  if (problem) throw DataError("{}: cannot create the folder: {}", partial.string(), problem.message());
  try {
    save_safetensors(partial / kFiles[0], contents.model);
    save_safetensors(partial / kFiles[1], contents.optimizer);
    write_file_atomically(partial / kFiles[2], contents.state);
    Json manifest = {{"format_version", kFormatVersion}, {"step", step}, {"files", Json::object()}};
    for (const char* name : kFiles) {
      manifest["files"][name] = {{"bytes", fs::file_size(partial / name)}, {"sha256", sha256_of_file(partial / name)}};
    }
    write_file_atomically(partial / kManifest, manifest.dump(2) + "\n");
    sync_path(partial);
  } catch (...) {
    fs::remove_all(partial, problem);
    throw;
  }
  if (fs::exists(target)) remove_folder(root, target);
  rename_or_throw(partial, target);
  sync_path(root);
  point_latest_at(root, folder_name(step));
  remove_old(root, keep_last);
  return target;
}

Contents load(const fs::path& folder) {
  verify(folder);
  return {load_safetensors(folder / kFiles[0]), load_safetensors(folder / kFiles[1]), read_file(folder / kFiles[2])};
}

std::vector<int64_t> steps_in(const fs::path& root) {
  std::vector<int64_t> steps;
  std::error_code problem;
  for (const fs::directory_entry& entry : fs::directory_iterator(root, problem)) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    if (!entry.is_directory() || entry.is_symlink() || !name.starts_with(kPrefix)) continue;
    const char* begin = name.data() + std::char_traits<char>::length(kPrefix);
    const auto [end, error] = std::from_chars(begin, name.data() + name.size(), step);
    if (error == std::errc() && end == name.data() + name.size()) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

fs::path find_latest(const fs::path& root) {
  std::vector<int64_t> steps = steps_in(root);
  if (steps.empty()) throw CheckpointError("{}: no checkpoint there; nothing to resume", root.string());
  std::string first_problem;
  while (!steps.empty()) {
    const fs::path folder = root / folder_name(steps.back());
    try {
      verify(folder);
      return folder;
    } catch (const Error& problem) {
      if (first_problem.empty()) first_problem = problem.what();
      steps.pop_back();
      log::warning("[checkpoint] {}; {}", problem.what(),
                   steps.empty() ? "no older one is left" : "falling back to " + folder_name(steps.back()));
    }
  }
  throw CheckpointError("{}: none of the checkpoints there is whole: {}", root.string(), first_problem);
}

}  // namespace scrna::checkpoint
