// Rows of numbers that a long computation has finished, in a file that the same computation goes on from:
// a line that says what it is, then fp32 rows. A row counts once its window was synced; what a kill left of
// a window is cut off. Another computation (other key) begins the file anew.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace scrna::eval {

class PartialRows {
 public:
  /// key: SHA-256 of everything that the rows depend on. Rows are kept in whole windows of window_rows; the
  /// last may be shorter. Throws DataError when the file cannot be opened, or another process writes to it.
  PartialRows(std::filesystem::path path, const std::string& key, int64_t num_rows, int64_t width,
              int64_t window_rows);
  /// The file stays.
  ~PartialRows();
  PartialRows(const PartialRows&) = delete;
  PartialRows& operator=(const PartialRows&) = delete;

  /// Rows done: a multiple of window_rows, or all.
  [[nodiscard]] int64_t num_done() const { return num_done_; }
  /// True when the file was there with other rows, which are gone.
  [[nodiscard]] bool was_replaced() const { return was_replaced_; }
  /// The next `count` rows, to disk before it returns. Throws DataError (disk full ...).
  void append(const float* rows, int64_t count);
  /// Throws DataError when the file was cut meanwhile.
  void read(int64_t first, int64_t count, float* out) const;
  void remove();

 private:
  std::filesystem::path path_;
  int64_t width_;
  int descriptor_ = -1;
  int64_t data_begin_ = 0;  // bytes
  int64_t num_done_ = 0;
  bool was_replaced_ = false;
};

}  // namespace scrna::eval
