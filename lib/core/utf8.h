// UTF-8, strictly: what a file calls text must be text before it reaches messages, tables and JSON.
#pragma once

#include <cstddef>
#include <string_view>

namespace scrna {

/// Bytes of the character at the front of `text`, which must not be empty; 0 for none. Overlong forms,
/// surrogates, and control characters but tab and line ends are none.
std::size_t character_bytes(std::string_view text);

/// True for UTF-8 text without control characters, tabs and line ends among them. Empty text is one.
bool is_one_line_of_text(std::string_view text);

}  // namespace scrna
