// Files that are either whole or absent. Every output of the program goes through AtomicFile or AtomicDirectory:
// written under a temporary name beside the target, synced, then renamed, so a full disk, a kill or a power cut
// never leaves a half-written file under the final name.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace scrna {

/// Throws DataError ("cannot read ...: reason") when the file cannot be read whole, or is larger than `max_bytes`:
/// no text the program reads at once is, but a device may never end.
std::string read_file(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{1} << 30);

/// Replaces `path` by `contents`: temporary file, fsync, rename. Throws DataError with the reason (disk full ...).
void write_file_atomically(const std::filesystem::path& path, std::string_view contents);

/// A file being written under a temporary name. commit() makes it appear; without it the destructor removes it.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t num_bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// fsync, rename to the target, fsync of the folder. Throws DataError; then the target is untouched.
  void commit();
  /// Path of the temporary file, for writers that open files by name (HDF5).
  [[nodiscard]] const std::filesystem::path& temporary_path() const { return temporary_; }

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  bool committed_ = false;
};

/// Appends whole lines to a file (metrics.jsonl); each append() is one write. What a killed program left of a line at
/// the end of the file is cut off when it is opened. Throws DataError with the reason.
class LineAppender {
 public:
  explicit LineAppender(std::filesystem::path path);
  ~LineAppender();
  LineAppender(const LineAppender&) = delete;
  LineAppender& operator=(const LineAppender&) = delete;
  void append(std::string_view line_without_newline);
  void sync();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// fsync of a file or folder by path. Throws DataError.
void sync_path(const std::filesystem::path& path);

/// Lower-case hexadecimal SHA-256 of bytes, and of a file's contents (as `sha256sum` prints it).
std::string sha256(std::string_view bytes);
std::string sha256_of_file(const std::filesystem::path& path);

}  // namespace scrna
