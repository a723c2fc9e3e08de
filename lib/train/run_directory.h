// The folder of one run: config.yaml (resolved), run.json, vocabulary.tsv, metrics.jsonl, log.txt, checkpoints/,
// tensorboard/, and divergence/ where a step diverged. It is made once
// everything that can be wrong with the inputs has been looked at, so a misspelt gene column leaves no folder behind,
// and it is locked while a process trains in it, so two runs never write into one.
#pragma once

#include <filesystem>
#include <utility>

namespace scrna::train {

class RunDirectory {
 public:
  /// A new folder (its parents too). Throws ConfigError when something is there already, DataError when it cannot be
  /// made.
  static RunDirectory create(const std::filesystem::path& path);
  /// The folder of an earlier run. Throws ConfigError when it is not one, or another process trains in it.
  static RunDirectory open(const std::filesystem::path& path);
  /// The same names without making, locking or looking: for a rank that leaves the writing to the first one.
  static RunDirectory unlocked(const std::filesystem::path& path);
  /// For a rank other than the first, once that one has made or opened the folder: waits until `path` holds this
  /// configuration (network file systems may take a minute), for so many seconds at most. Throws ConfigError: this rank
  /// sees no such folder, so it could not resume.
  static void require_shared(const std::filesystem::path& path, const std::string& config_yaml, double seconds);
  /// Throws what create() would (but for a disk that fails), without making anything.
  static void require_free(const std::filesystem::path& path);
  /// The run directory that holds `path`: a run directory itself, its checkpoints/, or one checkpoint. Throws ConfigError
  /// when there is none.
  static std::filesystem::path containing(const std::filesystem::path& path);

  ~RunDirectory();
  RunDirectory(RunDirectory&& other) noexcept;
  RunDirectory& operator=(RunDirectory&&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::filesystem::path config() const { return path_ / "config.yaml"; }
  [[nodiscard]] std::filesystem::path vocabulary() const { return path_ / "vocabulary.tsv"; }
  [[nodiscard]] std::filesystem::path metrics() const { return path_ / "metrics.jsonl"; }
  [[nodiscard]] std::filesystem::path divergence() const { return path_ / "divergence"; }
  [[nodiscard]] std::filesystem::path tensorboard() const { return path_ / "tensorboard"; }
  [[nodiscard]] std::filesystem::path facts() const { return path_ / "run.json"; }
  [[nodiscard]] std::filesystem::path log() const { return path_ / "log.txt"; }
  [[nodiscard]] std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }

 private:
  explicit RunDirectory(std::filesystem::path path) : path_(std::move(path)) {}
  void lock();

  std::filesystem::path path_;
  int lock_descriptor_ = -1;
};

}  // namespace scrna::train
