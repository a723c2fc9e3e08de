#include "lib/checkpoint/checkpoint.h"

#include <fcntl.h>
#include <stdio.h>  // renameat2
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

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
constexpr const char* kLatest = "latest";
constexpr std::size_t kMaxManifestBytes = 1 << 20;
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

// Gives `partial` the name `target`. When that exists the two change names in one step, so that at no moment the
// step has no checkpoint; file systems that cannot do so see it removed first.
void put_in_place(const fs::path& root, const fs::path& partial, const fs::path& target) {
  std::error_code ignored;
  if (fs::exists(target, ignored)) {
    if (::renameat2(AT_FDCWD, partial.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) {
      fs::remove_all(partial, ignored);
      return;
    }
    remove_folder(root, target);
  }
  rename_or_throw(partial, target);
}

// A link is a convenience: where the file system has none, the checkpoint is found by its number.
void point_latest_at(const fs::path& root, const std::string& name) {
  const fs::path temporary = root / (std::string(kPartialPrefix) + "latest");
  std::error_code problem;
  fs::remove_all(temporary, problem);
  fs::create_symlink(name, temporary, problem);
  if (!problem) fs::rename(temporary, root / kLatest, problem);
  if (problem) {
    log::warning("[checkpoint] {}: cannot point it at {}: {}", (root / kLatest).string(), name, problem.message());
  }
}

// The newest ones stay, and the one just saved, which may be older: training can be resumed from an earlier step.
void remove_old(const fs::path& root, int64_t keep_last, int64_t saved) {
  std::vector<int64_t> steps = steps_in(root);
  std::erase(steps, saved);
  const int64_t num_removed = std::ssize(steps) - (keep_last - 1);
  for (int64_t i = 0; i < num_removed; ++i) remove_folder(root, root / folder_name(steps[static_cast<std::size_t>(i)]));
  std::vector<fs::path> left_behind;
  std::error_code problem;
  for (fs::directory_iterator entry(root, problem); !problem && entry != fs::directory_iterator(); entry.increment(problem)) {
    if (entry->path().filename().string().starts_with(kPartialPrefix)) left_behind.push_back(entry->path());
  }
  for (const fs::path& path : left_behind) fs::remove_all(path, problem);
}

// Throws CheckpointError unless the manifest names `name` with the size and checksum that the file has.
void verify_file(const Json& files, const fs::path& folder, const char* name) {
  const fs::path file = folder / name;
  std::error_code problem;
  if (!files.contains(name) || !fs::is_regular_file(file, problem)) {
    throw CheckpointError("{}: missing from the checkpoint; resume from another one", file.string());
  }
  const uint64_t bytes = fs::file_size(file, problem);
  if (problem || files.at(name).at("bytes").get<uint64_t>() != bytes ||
      files.at(name).at("sha256").get<std::string>() != sha256_of_file(file)) {
    throw CheckpointError("{}: damaged: its size or SHA-256 is not what {} says; resume from another checkpoint",
                          file.string(), kManifest);
  }
}

void verify(const fs::path& folder, std::span<const char* const> names = kFiles) {
  const fs::path path = folder / kManifest;
  std::error_code problem;
  if (!fs::is_regular_file(path, problem)) {
    throw CheckpointError("{}: not a finished checkpoint: it has no {}", folder.string(), kManifest);
  }
  try {
    const Json manifest = Json::parse(read_file(path, kMaxManifestBytes));
    const int64_t version = manifest.at("format_version").get<int64_t>();
    if (version != kFormatVersion) {
      throw CheckpointError("{}: written in version {} of the format, but this program reads version {}", path.string(),
                            version, kFormatVersion);
    }
    for (const char* name : names) verify_file(manifest.at("files"), folder, name);
  } catch (const Json::exception&) {
    throw CheckpointError("{}: damaged: it is not the manifest of a checkpoint; resume from another one", path.string());
  }
}

// The step that `latest` points at, if it is one of ours.
std::optional<int64_t> step_of_latest(const fs::path& root) {
  std::error_code problem;
  const std::string target = fs::read_symlink(root / kLatest, problem).string();
  for (const int64_t step : steps_in(root)) {
    if (!problem && target == folder_name(step)) return step;
  }
  return std::nullopt;
}

}  // namespace

std::string folder_name(int64_t step) { return fmt::format("{}{:08}", kPrefix, step); }

fs::path save(const fs::path& root, int64_t step, const Contents& contents, int64_t keep_last) {
  SCRNA_CHECK(step >= 0 && keep_last >= 1, "step {}, keep the last {}", step, keep_last);
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
    put_in_place(root, partial, target);
  } catch (...) {
    fs::remove_all(partial, problem);
    throw;
  }
  sync_path(root);
  point_latest_at(root, folder_name(step));
  remove_old(root, keep_last, step);
  return target;
}

Contents load(const fs::path& folder) {
  verify(folder);
  return {load_safetensors(folder / kFiles[0]), load_safetensors(folder / kFiles[1]), read_file(folder / kFiles[2])};
}

Contents load_without_optimizer(const fs::path& folder) {
  constexpr std::array kNeeded = {kFiles[0], kFiles[2]};
  verify(folder, kNeeded);
  return {.model = load_safetensors(folder / kFiles[0]), .optimizer = {}, .state = read_file(folder / kFiles[2])};
}

std::vector<int64_t> steps_in(const fs::path& root) {
  std::vector<int64_t> steps;
  std::error_code problem, ignored;
  for (fs::directory_iterator entry(root, problem); !problem && entry != fs::directory_iterator(); entry.increment(problem)) {
    const std::string name = entry->path().filename().string();
    int64_t step = 0;
    if (!name.starts_with(kPrefix) || entry->is_symlink(ignored) || !entry->is_directory(ignored)) continue;
    const char* begin = name.data() + std::char_traits<char>::length(kPrefix);
    const auto [end, error] = std::from_chars(begin, name.data() + name.size(), step);
    if (error == std::errc() && end == name.data() + name.size() && step >= 0 && name == folder_name(step)) {
      steps.push_back(step);
    }
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

fs::path find_latest(const fs::path& root) {
  std::vector<int64_t> steps = steps_in(root);
  if (steps.empty()) throw CheckpointError("{}: no checkpoint there; nothing to resume", root.string());
  // What was saved last comes first, even if an earlier attempt went further.
  if (const auto linked = step_of_latest(root)) {
    std::erase(steps, *linked);
    steps.push_back(*linked);
  }
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
