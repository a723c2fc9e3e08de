#include "lib/config/config.h"

#include <algorithm>

#include <fmt/format.h>

namespace scrna::config {
namespace {

std::size_t depth(const std::string& path) {
  return static_cast<std::size_t>(std::count(path.begin(), path.end(), '.'));
}
std::string last_part(const std::string& path) { return path.substr(path.rfind('.') + 1); }
std::string section_of(const std::string& path) {
  const std::size_t dot = path.rfind('.');
  return dot == std::string::npos ? std::string() : path.substr(0, dot);
}

// Text inside a cell of a Markdown table.
std::string cell(const std::string& text) {
  if (text.empty()) return " ";
  std::string escaped;
  for (const char letter : text) {
    if (letter == '|') escaped += '\\';
    escaped += letter;
  }
  return escaped;
}

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
  const auto add_fields_of = [&](const std::string& section) {
    std::string rows;
    for (const Entry& entry : entries) {
      if (entry.is_section || section_of(entry.path) != section) continue;
      rows += fmt::format("| `{}` | {} | `{}` | {} | {} |\n", entry.path, cell(entry.type), cell(entry.value),
                          cell(entry.range), cell(entry.help));
    }
    if (!rows.empty()) text += "\n| key | type | default | range | meaning |\n|---|---|---|---|---|\n" + rows;
  };
  add_fields_of("");
  for (const Entry& entry : entries) {
    if (!entry.is_section) continue;
    text += fmt::format("\n### `{}`: {}\n", entry.path, entry.help);
    add_fields_of(entry.path);
  }
  return text;
}

bool is_among(std::span<const std::string_view> names, std::string_view path) {
  return std::ranges::any_of(names, [&](std::string_view name) {
    return name.ends_with('.') ? path.starts_with(name) : path == name;
  });
}

std::vector<Difference> differences(std::span<const Entry> before, std::span<const Entry> after) {
  std::vector<Difference> result;
  for (std::size_t i = 0; i < std::min(before.size(), after.size()); ++i) {
    if (before[i].value != after[i].value)
      result.push_back({before[i].path, before[i].value, after[i].value});
  }
  return result;
}

}  // namespace scrna::config
