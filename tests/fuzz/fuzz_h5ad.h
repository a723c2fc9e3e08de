// What the two targets on .h5ad files share: building files in memory with HDF5 itself, and reading a matrix
// as a run reads it. Callers of HDF5 hold data::h5::hdf5_mutex().
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <hdf5.h>

#include "lib/core/error.h"
#include "lib/data/anndata.h"
#include "lib/data/hdf5.h"
#include "tests/fuzz/fuzz_targets.h"

namespace scrna::fuzz {

inline constexpr int64_t kCells = 5, kGenes = 4;

/// Transfer properties for writing: HDF5's own buffers for conversions are 1 MB each and zeroed every time.
hid_t small_buffers();

/// An HDF5 file in memory.
class Image {
 public:
  Image();
  ~Image();
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;
  [[nodiscard]] hid_t id() const { return file_; }
  [[nodiscard]] std::string bytes() const;

 private:
  hid_t file_ = -1;
};

void text_attribute(hid_t object, const char* name, const std::string& value, bool is_fixed);
void number_attribute(hid_t object, const char* name, const std::vector<int64_t>& values);
/// A data set of texts, some of them chosen, the others all different.
void texts(hid_t group, const char* name, Choices& choices, int64_t length);

/// Each part by itself: an error of one must not hide the others.
template <class Read>
void attempt(const Read& read) {
  try {
    read();
  } catch (const Error& error) {
    if (error.code() == ExitCode::kBug) throw;
  }
}

/// Reads and checks the cells of a matrix; throws InternalError for a block that a CountMatrix may not give.
void read_matrix(const data::AnnDataFile& file, const std::string& name);

}  // namespace scrna::fuzz
