// Initial weights: normal(0, range), from counter-based streams keyed by (seed, parameter name), so that the
// same seed gives the same model on every machine, device and number of threads.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

namespace scrna::model {

/// fp32 tensor on the CPU with independent draws from normal(0, standard_deviation).
at::Tensor normal_values(const std::vector<int64_t>& shape, double standard_deviation, uint64_t seed,
                         std::string_view name);

}  // namespace scrna::model
