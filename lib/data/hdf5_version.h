// The version of the HDF5 library in use, for callers that include no HDF5 header.
#pragma once

#include <string>

namespace scrna::data {

/// "1.10.8", asked at run time.
std::string hdf5_version();

}  // namespace scrna::data
