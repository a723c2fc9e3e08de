// Compression filters that HDF5 itself does not bring: which data set needs one, how it is called, and which
// package has it. Internal to lib/data.
#pragma once

#include <string>

#include <hdf5.h>

namespace scrna::data::h5 {

/// One clause for a message ("is compressed with zstd ..., install ... or rewrite ...") when the data set
/// with these creation properties needs a filter that neither HDF5 nor its plugins (HDF5_PLUGIN_PATH) have;
/// else empty.
std::string missing_filter(hid_t properties);

}  // namespace scrna::data::h5
