#include "lib/eval/partial_rows.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/core/error.h"

namespace scrna::eval {
namespace {

// Like read() and write() but for all bytes.
template <class Call>
bool all_bytes(Call call, int64_t num_bytes) {
  for (int64_t done = 0; done < num_bytes;) {
    const ssize_t count = call(done, static_cast<std::size_t>(num_bytes - done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    done += count;
  }
  return true;
}

}  // namespace

PartialRows::PartialRows(std::filesystem::path path, const std::string& key, int64_t num_rows, int64_t width,
                         int64_t window_rows)
    : path_(std::move(path)), width_(width) {
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw DataError("{}: cannot open: {}", path_.string(), std::strerror(errno));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(std::exchange(descriptor_, -1));
    throw DataError("{}: another process is writing the same output; wait for it, or choose another name",
                    path_.string());
  }
  const std::string header = fmt::format("scrna-train rows 1 {} {} {}\n", key, width, window_rows);
  data_begin_ = std::ssize(header);
  struct stat status {};
  const int64_t size = ::fstat(descriptor_, &status) == 0 ? status.st_size : 0;
  std::string found(header.size(), '\0');
  const bool is_ours = ::pread(descriptor_, found.data(), found.size(), 0) == data_begin_ && found == header;
  if (is_ours) {
    const int64_t rows =
        std::min(num_rows, (size - data_begin_) / (width_ * static_cast<int64_t>(sizeof(float))));
    num_done_ = rows == num_rows ? rows : rows / window_rows * window_rows;
  }
  was_replaced_ = !is_ours && size > 0;
  const int64_t kept = is_ours ? data_begin_ + num_done_ * width_ * static_cast<int64_t>(sizeof(float)) : 0;
  const bool is_ready = ::ftruncate(descriptor_, kept) == 0 &&
                        (is_ours || ::pwrite(descriptor_, header.data(), header.size(), 0) == data_begin_);
  if (!is_ready) {
    const std::string reason = std::strerror(errno);
    ::close(std::exchange(descriptor_, -1));
    throw DataError("{}: cannot write: {}; free some space or choose another folder", path_.string(), reason);
  }
}

PartialRows::~PartialRows() {
  if (descriptor_ >= 0) ::close(descriptor_);  // which unlocks
}

void PartialRows::append(const float* rows, int64_t count) {
  const auto row_bytes = width_ * static_cast<int64_t>(sizeof(float));
  const int64_t offset = data_begin_ + num_done_ * row_bytes;
  const char* bytes = reinterpret_cast<const char*>(rows);
  const bool is_written =
      all_bytes([&](int64_t done,
                    std::size_t left) { return ::pwrite(descriptor_, bytes + done, left, offset + done); },
                count * row_bytes) &&
      ::fdatasync(descriptor_) == 0;
  if (!is_written) {
    throw DataError(
        "{}: cannot write: {}; free some space and give the same command again, it goes on where it was",
        path_.string(), std::strerror(errno));
  }
  num_done_ += count;
}

void PartialRows::read(int64_t first, int64_t count, float* out) const {
  const auto row_bytes = width_ * static_cast<int64_t>(sizeof(float));
  const int64_t offset = data_begin_ + first * row_bytes;
  char* bytes = reinterpret_cast<char*>(out);
  if (!all_bytes([&](int64_t done,
                     std::size_t left) { return ::pread(descriptor_, bytes + done, left, offset + done); },
                 count * row_bytes)) {
    throw DataError("{}: cannot read rows {} to {} back; was it changed by another program?", path_.string(),
                    first, first + count);
  }
}

void PartialRows::remove() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

}  // namespace scrna::eval
