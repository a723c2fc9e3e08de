// An unlinked temporary file (in TMPDIR) for what memory should not hold: it vanishes with its owner, also
// when the program is killed. Internal to lib/data.
#pragma once

#include <cstdint>

namespace scrna::data {

class ScratchFile {
 public:
  /// Reserves the space, so that a full disk is reported here and not later. Throws DataError saying what to
  /// do.
  explicit ScratchFile(uint64_t num_bytes);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  /// Both may be called from several threads for different parts. Throw DataError.
  void write(uint64_t offset, const void* data, uint64_t num_bytes);
  void read(uint64_t offset, void* data, uint64_t num_bytes) const;
  /// Gives back the space behind the first `num_bytes`.
  void shrink(uint64_t num_bytes);

 private:
  int descriptor_ = -1;
};

}  // namespace scrna::data
