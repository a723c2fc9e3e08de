// Fields of CSV files (RFC 4180).
#pragma once

#include <string>

namespace scrna {

/// The text, in quotes where it must be.
std::string csv_field(const std::string& text);

}  // namespace scrna
