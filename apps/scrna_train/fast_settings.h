// What --fast of embed, annotate and bench embed means.
#pragma once

#include <string>
#include <vector>

namespace scrna::app {

/// Settings that make bf16 on a GPU faster and a little less exact (lib/model/model_config.h), as --set takes them.
inline std::vector<std::string> fast_assignments() {
  return {"model.attention_precision=fast", "model.gelu_precision=fast", "model.residual_precision=bf16"};
}

}  // namespace scrna::app
