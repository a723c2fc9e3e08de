#include "lib/config/config.h"

#include <fmt/format.h>

#include <algorithm>

namespace scrna::config {
namespace {

std::size_t depth(const std::string& path) { return static_cast<std::size_t>(std::count(path.begin(), path.end(), '.')); }
std::string last_part(const std::string& path) { return path.substr(path.rfind('.') + 1); }

}  // namespace

std::string dump(std::span<const Entry> entries) {
  std::string text;
  for (const Entry& entry : entries) {
    const std::string indent(2 * depth(entry.path), ' ');
    if (entry.is_section) {
      text += fmt::format("{}{}:  # {}\n", indent, last_part(entry.path), entry.help);
    } else {
      text += fmt::format("{}{}: {}  # {}\n", indent, last_part(entry.path), entry.value, entry.help);
    }
  }
  return text;
}

std::string reference_markdown(std::span<const Entry> entries) {
  std::string text;
  for (const Entry& entry : entries) {
    if (entry.is_section) {
      text += fmt::format("\n### `{}`: {}\n\n| key | type | default | range | meaning |\n|---|---|---|---|---|\n", entry.path, entry.help);
    } else {
      text += fmt::format("| `{}` | {} | `{}` | {} | {} |\n", entry.path, entry.type, entry.value.empty() ? " " : entry.value, entry.range, entry.help);
    }
  }
  return text;
}

std::vector<Difference> differences(std::span<const Entry> before, std::span<const Entry> after) {
  std::vector<Difference> result;
  for (std::size_t i = 0; i < std::min(before.size(), after.size()); ++i) {
    if (before[i].value != after[i].value) result.push_back({before[i].path, before[i].value, after[i].value});
  }
  return result;
}

}  // namespace scrna::config
