// How fast this device multiplies matrices: the denominator of MFU. A measured number instead of the data
// sheet's, because the same GPU runs at different clocks under different power limits and no program reaches
// the sheet. Square products of random bf16 numbers (zeros would draw less power and run faster), long enough
// to be at full load.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

namespace scrna::train {

/// FLOP/s of at::mm in `type`: the median of a series that takes about `seconds` after one to warm up.
/// Blocks. 0.4 GB of the device's memory meanwhile on a GPU, given back to the driver at the end; the peak
/// statistics begin anew.
double measure_matrix_ceiling(at::Device device, at::ScalarType type, double seconds = 0.05);

}  // namespace scrna::train
