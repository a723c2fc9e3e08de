#include "lib/data/scratch_file.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "lib/core/error.h"

namespace scrna::data {
namespace {

std::string folder() {
  const char* chosen = std::getenv("TMPDIR");
  return chosen != nullptr && *chosen != '\0' ? chosen : "/tmp";
}

}  // namespace

ScratchFile::ScratchFile(uint64_t num_bytes) {
  std::string path = folder() + "/scrna-scratch-XXXXXX";
  descriptor_ = ::mkostemp(path.data(), O_CLOEXEC);
  if (descriptor_ < 0) {
    throw DataError("{}: cannot create a temporary file there ({}); set TMPDIR to a folder with space",
                    folder(), std::strerror(errno));
  }
  ::unlink(path.c_str());
  const int problem = num_bytes == 0 ? 0 : ::posix_fallocate(descriptor_, 0, static_cast<off_t>(num_bytes));
  if (problem != 0) {
    ::close(descriptor_);
    throw DataError(
        "{}: cannot take {} MB of temporary space to transpose a CSC matrix ({}); set TMPDIR to a folder "
        "with "
        "space, or store the matrix as CSR: adata.X = adata.X.tocsr()",
        folder(), (num_bytes >> 20) + 1, std::strerror(problem));
  }
}

ScratchFile::~ScratchFile() { ::close(descriptor_); }

void ScratchFile::write(uint64_t offset, const void* data, uint64_t num_bytes) {
  const char* cursor = static_cast<const char*>(data);
  while (num_bytes > 0) {
    const ssize_t done = ::pwrite(descriptor_, cursor, num_bytes, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      throw DataError("{}: cannot write a temporary file: {}; set TMPDIR to a folder with space", folder(),
                      std::strerror(errno));
    }
    cursor += done;
    offset += static_cast<uint64_t>(done);
    num_bytes -= static_cast<uint64_t>(done);
  }
}

void ScratchFile::read(uint64_t offset, void* data, uint64_t num_bytes) const {
  char* cursor = static_cast<char*>(data);
  while (num_bytes > 0) {
    const ssize_t done = ::pread(descriptor_, cursor, num_bytes, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      throw DataError("{}: cannot read back a temporary file: {}", folder(),
                      done == 0 ? "it is shorter than written" : std::strerror(errno));
    }
    cursor += done;
    offset += static_cast<uint64_t>(done);
    num_bytes -= static_cast<uint64_t>(done);
  }
}

void ScratchFile::shrink(uint64_t num_bytes) {
  if (::ftruncate(descriptor_, static_cast<off_t>(num_bytes)) != 0) {
    throw DataError("{}: cannot shorten a temporary file: {}", folder(), std::strerror(errno));
  }
}

}  // namespace scrna::data
