// configs/README.md: every setting with type, default, range and meaning, made from the declarations. A test compares the
// file with this text, so it cannot go stale; `scrna-train train --print-reference` writes it.
#pragma once

#include <string>

namespace scrna::train {

std::string config_reference();

}  // namespace scrna::train
