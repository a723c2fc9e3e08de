#include "lib/bench/device.h"

#include <ATen/Context.h>

#include "lib/core/error.h"

namespace scrna::bench {

void require_gpu(std::string_view benchmark) {
  if (at::hasCUDA()) return;
  throw DeviceError(
      "{}: no CUDA device found; run it on a machine with an NVIDIA GPU (scrna-train --version says what is "
      "found), or "
      "measure the CPU with --device cpu",
      benchmark);
}

}  // namespace scrna::bench
