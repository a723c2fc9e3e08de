// What values of an obs column say about labels, for everything that reads labels (lib/finetune, lib/eval).
#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <string_view>

namespace scrna::data {

/// "", and what pandas writes for a missing value into a column of texts: no label.
inline bool is_missing_label(std::string_view text) {
  constexpr std::array<std::string_view, 4> kMissing = {"", "nan", "NaN", "<NA>"};
  return std::ranges::find(kMissing, text) != kMissing.end();
}

/// A value that reads as if it meant "no label", in any case: it is a label nonetheless, since it may be one, but
/// users are to know.
inline bool sounds_like_no_label(std::string_view text) {
  constexpr std::array<std::string_view, 13> kWords = {
      "unlabelled", "unlabeled", "unknown", "unassigned", "unannotated", "unclassified", "undefined",
      "undetermined", "not assigned", "none", "na", "n/a", "null"};
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return std::ranges::find(kWords, lower) != kWords.end();
}

}  // namespace scrna::data
