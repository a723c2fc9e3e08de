// The LZF filter of h5py (compression="lzf", filter 32000), which HDF5 itself does not have: decompression
// only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace scrna::data::h5 {

/// Makes HDF5 able to read LZF chunks. Called before the first file is opened; later calls do nothing.
void register_lzf();

/// Decompresses one chunk of at most `max_bytes`; false when it is damaged or longer than that.
bool decompress_lzf(std::span<const uint8_t> input, std::size_t max_bytes, std::vector<uint8_t>& output);

}  // namespace scrna::data::h5
