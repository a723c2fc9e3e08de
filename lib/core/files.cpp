#include "lib/core/files.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <vector>

#include "lib/core/error.h"

namespace scrna {
namespace {

std::string reason() { return std::strerror(errno); }

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

void write_all(int descriptor, const void* data, std::size_t num_bytes, const std::filesystem::path& path) {
  const char* cursor = static_cast<const char*>(data);
  while (num_bytes > 0) {
    const ssize_t written = ::write(descriptor, cursor, num_bytes);
    if (written < 0) {
      if (errno == EINTR) continue;
      throw DataError("{}: cannot write: {}; free some space or choose another folder", path.string(), reason());
    }
    cursor += written;
    num_bytes -= static_cast<std::size_t>(written);
  }
}

// Size of the file up to and with its last line end.
off_t end_of_lines(int descriptor, off_t size) {
  std::array<char, 4096> piece{};
  while (size > 0) {
    const off_t begin = std::max<off_t>(0, size - static_cast<off_t>(piece.size()));
    const ssize_t count = ::pread(descriptor, piece.data(), static_cast<std::size_t>(size - begin), begin);
    if (count <= 0) return size;  // cannot be read: leave it as it is
    for (ssize_t i = count; i-- > 0;) {
      if (piece[static_cast<std::size_t>(i)] == '\n') return begin + i + 1;
    }
    size = begin;
  }
  return 0;
}

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    SCRNA_CHECK(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1, "OpenSSL SHA-256 is missing");
  }
  void update(const void* data, std::size_t num_bytes) { EVP_DigestUpdate(context_.get(), data, num_bytes); }
  std::string hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int length = 0;
    EVP_DigestFinal_ex(context_.get(), digest.data(), &length);
    std::string text;
    for (unsigned int i = 0; i < length; ++i) text += fmt::format("{:02x}", digest[i]);
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

}  // namespace

std::string read_file(const std::filesystem::path& path, std::size_t max_bytes) {
  std::ifstream stream(path, std::ios::binary);
  std::error_code ignored;
  const bool is_folder = std::filesystem::is_directory(path, ignored);
  if (!stream || is_folder) {
    throw DataError("{}: cannot read the file: {}", path.string(), is_folder ? "it is a folder" : reason());
  }
  std::string contents;
  constexpr std::size_t kPiece = 1 << 20;
  while (stream) {
    const std::size_t size = contents.size();
    contents.resize(size + kPiece);
    stream.read(contents.data() + size, kPiece);
    contents.resize(size + static_cast<std::size_t>(stream.gcount()));
    if (contents.size() > max_bytes) throw DataError("{}: is longer than {} bytes; is it the right file?", path.string(), max_bytes);
  }
  if (stream.bad()) throw DataError("{}: reading stopped: {}", path.string(), reason());
  return contents;
}

void sync_path(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw DataError("{}: cannot open to sync: {}", path.string(), reason());
  const int status = ::fsync(descriptor);
  const int saved = errno;
  ::close(descriptor);
  // Some file systems refuse fsync on folders (EINVAL); the rename is then as durable as they make it.
  if (status != 0 && saved != EINVAL) throw DataError("{}: cannot sync to disk: {}", path.string(), std::strerror(saved));
}

AtomicFile::AtomicFile(std::filesystem::path target) : target_(std::move(target)) {
  temporary_ = target_;
  temporary_ += fmt::format(".tmp-{}", ::getpid());
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw DataError("{}: cannot create the file: {}", target_.string(), reason());
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!committed_) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t num_bytes) { write_all(descriptor_, data, num_bytes, target_); }

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) throw DataError("{}: cannot sync to disk: {}", target_.string(), reason());
  const int status = ::close(descriptor_);
  descriptor_ = -1;
  if (status != 0) throw DataError("{}: cannot close: {}", target_.string(), reason());
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
    throw DataError("{}: cannot put the file in place: {}", target_.string(), reason());
  }
  committed_ = true;
  sync_path(folder_of(target_));
}

void write_file_atomically(const std::filesystem::path& path, std::string_view contents) {
  AtomicFile file(path);
  file.write(contents);
  file.commit();
}

LineAppender::LineAppender(std::filesystem::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw DataError("{}: cannot open for appending: {}", path_.string(), reason());
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) return;
  const off_t end = end_of_lines(descriptor_, status.st_size);
  if (end < status.st_size && ::ftruncate(descriptor_, end) != 0) {
    const std::string why = reason();
    ::close(descriptor_);
    throw DataError("{}: its last line is incomplete and cannot be cut off: {}", path_.string(), why);
  }
}

LineAppender::~LineAppender() { ::close(descriptor_); }

void LineAppender::append(std::string_view line) {
  std::string text(line);
  text += '\n';
  write_all(descriptor_, text.data(), text.size(), path_);
}

void LineAppender::sync() {
  if (::fsync(descriptor_) != 0) throw DataError("{}: cannot sync to disk: {}", path_.string(), reason());
}

std::string sha256(std::string_view bytes) {
  Sha256 hash;
  hash.update(bytes.data(), bytes.size());
  return hash.hex();
}

std::string sha256_of_file(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw DataError("{}: cannot read the file: {}", path.string(), reason());
  Sha256 hash;
  std::vector<char> buffer(1 << 20);
  while (stream.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || stream.gcount() > 0) {
    hash.update(buffer.data(), static_cast<std::size_t>(stream.gcount()));
  }
  if (stream.bad()) throw DataError("{}: reading stopped: {}", path.string(), reason());
  return hash.hex();
}

}  // namespace scrna
