// "did you mean ...?": the known name nearest to a misspelt one.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace scrna {

/// Levenshtein distance in characters.
std::size_t edit_distance(std::string_view a, std::string_view b);
/// The nearest of `known` to `name`, or "" when none is near (distance above a third of the longer name, at least 2).
std::string nearest_name(std::string_view name, std::span<const std::string> known);

}  // namespace scrna
