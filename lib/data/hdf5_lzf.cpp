// The format (LibLZF): a control byte below 32 announces control + 1 literal bytes; any other is a copy from
// what was already written, of length (control >> 5) + 2 (7 there: plus one more byte) at distance
// ((control & 31) << 8 | next byte) + 1. Every length and distance is checked against both buffers.
#include "lib/data/hdf5_lzf.h"

#include <cstring>
#include <new>

#include <hdf5.h>

namespace scrna::data::h5 {
namespace {

constexpr H5Z_filter_t kLzfFilter = 32000;
constexpr std::size_t kMaxChunkBytes = std::size_t{1} << 30;  // as in hdf5_dataset.cpp

// Replaces *buffer by its decompressed contents; 0 tells HDF5 of a failure. h5py
// stores the size of a decompressed chunk in the third parameter of the filter.
std::size_t filter(unsigned flags, std::size_t num_parameters, const unsigned* parameters,
                   std::size_t num_bytes, std::size_t* buffer_bytes, void** buffer) {
  if ((flags & H5Z_FLAG_REVERSE) == 0) return 0;
  const std::size_t max_bytes = num_parameters >= 3 && parameters[2] > 0 ? parameters[2] : kMaxChunkBytes;
  std::vector<uint8_t> output;
  try {
    if (!decompress_lzf({static_cast<const uint8_t*>(*buffer), num_bytes}, max_bytes, output)) return 0;
  } catch (const std::bad_alloc&) {
    return 0;
  }
  if (output.empty()) return 0;
  void* replacement = H5allocate_memory(output.size(), false);
  if (replacement == nullptr) return 0;
  std::memcpy(replacement, output.data(), output.size());
  H5free_memory(*buffer);
  *buffer = replacement;
  *buffer_bytes = output.size();
  return output.size();
}

}  // namespace

bool decompress_lzf(std::span<const uint8_t> input, std::size_t max_bytes, std::vector<uint8_t>& output) {
  output.clear();
  std::size_t at = 0;
  while (at < input.size()) {
    const unsigned control = input[at++];
    if (control < 32) {
      const std::size_t length = control + 1;
      if (length > input.size() - at || length > max_bytes - output.size()) return false;
      output.insert(output.end(), input.begin() + static_cast<std::ptrdiff_t>(at),
                    input.begin() + static_cast<std::ptrdiff_t>(at + length));
      at += length;
      continue;
    }
    std::size_t length = (control >> 5) + 2;
    if (length == 9) {
      if (at == input.size()) return false;
      length += input[at++];
    }
    if (at == input.size()) return false;
    const std::size_t distance = ((control & 31) << 8 | input[at++]) + 1;
    if (distance > output.size() || length > max_bytes - output.size()) return false;
    // Byte by byte, since a copy may reach into what it is writing (a run).
    for (std::size_t i = 0; i < length; ++i) output.push_back(output[output.size() - distance]);
  }
  return true;
}

void register_lzf() {
  static const bool done = [] {
    if (H5Zfilter_avail(kLzfFilter) > 0) return true;  // a plugin is installed
    H5Z_class2_t description{};
    description.version = H5Z_CLASS_T_VERS;
    description.id = kLzfFilter;
    description.encoder_present = 0;
    description.decoder_present = 1;
    description.name = "lzf";
    description.filter = &filter;
    return H5Zregister(&description) >= 0;
  }();
  static_cast<void>(done);
}

}  // namespace scrna::data::h5
