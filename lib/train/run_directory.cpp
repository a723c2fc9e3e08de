#include "lib/train/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/signals.h"

namespace scrna::train {

namespace fs = std::filesystem;

RunDirectory RunDirectory::unlocked(const fs::path& path) { return RunDirectory(path); }

void RunDirectory::require_shared(const fs::path& path, const std::string& config_yaml, double seconds) {
  const fs::path config = path / "config.yaml";
  const double end = now_seconds() + seconds;
  for (;;) {
    std::error_code problem;
    const bool is_there = fs::is_regular_file(config, problem);
    try {
      if (is_there && read_file(config) == config_yaml) return;
    } catch (const DataError&) {  // being replaced, or not to be read: as if it were not there
    }
    if (now_seconds() >= end || stop_signal() != 0) {
      throw ConfigError(
          "run.dir: {}: this process does not see the folder that rank 0 {} ({}), from which all must be able to "
          "resume; put it on a file system that all machines share",
          path.string(), is_there ? "opened, but another one of that name" : "made",
          is_there ? "another config.yaml" : "no config.yaml");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

RunDirectory::RunDirectory(RunDirectory&& other) noexcept
    : path_(std::move(other.path_)), lock_descriptor_(std::exchange(other.lock_descriptor_, -1)) {}

RunDirectory::~RunDirectory() {
  if (lock_descriptor_ >= 0) ::close(lock_descriptor_);  // which unlocks
}

void RunDirectory::require_free(const fs::path& path) {
  if (path.empty()) {
    throw ConfigError("run.dir: empty; name the folder that the run shall create, for example --set run.dir=runs/first");
  }
  std::error_code problem;
  const fs::file_status status = fs::symlink_status(path, problem);
  if (fs::exists(status)) {
    throw ConfigError(
        "run.dir: {} exists already; choose another folder (--set run.dir=...), or go on with that run (--resume "
        "latest)",
        path.string());
  }
  // Where it will be made: better found out now than after a pass over the data.
  fs::path parent = fs::absolute(path).parent_path();
  while (!fs::exists(parent, problem) && parent.has_relative_path()) parent = parent.parent_path();
  if (!fs::is_directory(parent, problem)) {
    throw DataError("run.dir: {} cannot be created: {} is not a folder", path.string(), parent.string());
  }
  if (::access(parent.c_str(), W_OK | X_OK) != 0) {
    throw DataError("run.dir: {} cannot be created: {}: {}", path.string(), parent.string(), std::strerror(errno));
  }
}

RunDirectory RunDirectory::create(const fs::path& path) {
  require_free(path);
  std::error_code problem;
  fs::create_directories(path, problem);
  if (problem) throw DataError("{}: cannot create the run directory: {}", path.string(), problem.message());
  RunDirectory directory(path);
  directory.lock();
  return directory;
}

RunDirectory RunDirectory::open(const fs::path& path) {
  if (!fs::is_directory(path)) {
    throw ConfigError("{}: no such run directory; nothing to resume. Leave out --resume to begin the run", path.string());
  }
  if (!fs::exists(path / "config.yaml")) {
    throw ConfigError("{}: not a run directory: it has no config.yaml", path.string());
  }
  RunDirectory directory(path);
  directory.lock();
  return directory;
}

fs::path RunDirectory::containing(const fs::path& path) {
  std::error_code problem;
  fs::path folder = fs::weakly_canonical(path, problem);
  if (problem || !fs::exists(folder)) throw ConfigError("{}: no such folder; nothing to resume", path.string());
  for (int level = 0; level < 3; ++level, folder = folder.parent_path()) {
    if (fs::exists(folder / "config.yaml")) return folder;
  }
  throw ConfigError("{}: neither a run directory nor a checkpoint of one (no config.yaml there or above)", path.string());
}

void RunDirectory::lock() {
  lock_descriptor_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_descriptor_ < 0) throw DataError("{}: cannot open the run directory: {}", path_.string(), std::strerror(errno));
  if (::flock(lock_descriptor_, LOCK_EX | LOCK_NB) == 0) return;
  const int reason = errno;
  ::close(std::exchange(lock_descriptor_, -1));
  if (reason == EWOULDBLOCK) {
    throw ConfigError("{}: another process is training in this run directory; stop it or choose another", path_.string());
  }
  // Some network file systems have no locks: training there is the user's to keep apart, as with any other program.
}

}  // namespace scrna::train
