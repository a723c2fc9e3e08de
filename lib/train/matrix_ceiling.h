// How fast this device multiplies matrices: the denominator of MFU. A measured number instead of the data
// sheet's, because the same GPU runs at different clocks under different power limits and no program reaches
// the sheet. Square products of random bf16 numbers (zeros would draw less power and run faster), one after
// another for half a second: the first tenth of a second runs at clocks that the power limit then takes away
// (an H200: 779 TFLOP/s in the first 50 ms, 672 behind a series of training steps), so the first half only
// warms up. `train` and `bench train` both measure so, before their first step; their MFUs compare.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

namespace scrna::train {

inline constexpr double kMatrixCeilingSeconds = 0.5;

/// FLOP/s of at::mm in `type`: the median of the second half of a series that takes about `seconds`.
/// Blocks. 0.4 GB of the device's memory meanwhile on a GPU, given back to the driver at the end; the peak
/// statistics begin anew.
double measure_matrix_ceiling(at::Device device, at::ScalarType type, double seconds = kMatrixCeilingSeconds);

}  // namespace scrna::train
