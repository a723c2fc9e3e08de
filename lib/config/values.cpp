#include "lib/config/values.h"

#include <cctype>
#include <charconv>
#include <cmath>

#include "lib/core/error.h"
#include "lib/core/suggest.h"

namespace scrna::config {
namespace {

const std::string& scalar(const Node& node, const std::string& path, std::string_view expected) {
  if (node.kind != Node::Kind::kScalar) {
    throw ConfigError("{}: {}: expected {}, got {}", node.where, path, expected,
                      node.kind == Node::Kind::kNull   ? "nothing"
                      : node.kind == Node::Kind::kList ? "a list"
                                                       : "a section");
  }
  return node.scalar;
}

void check_bound(double value, const std::string& written, const Node& node, const std::string& path,
                 const Bound& bound) {
  const bool too_low = bound.low_is_excluded ? value <= bound.low : value < bound.low;
  const bool too_high = bound.high_is_excluded ? value >= bound.high : value > bound.high;
  if (too_low || too_high) {
    throw ConfigError("{}: {}: must be {}, got {}", node.where, path, text_of(bound), written);
  }
}

template <class T>
void read_number(const Node& node, const std::string& path, const Bound& bound, std::string_view expected,
                 T& out) {
  const std::string& text = scalar(node, path, expected);
  T value{};
  const bool has_plus = text.size() > 1 && text[0] == '+' && text[1] != '-';  // from_chars takes no plus
  const char* const begin = text.data() + (has_plus ? 1 : 0);
  const auto [end, problem] = std::from_chars(begin, text.data() + text.size(), value);
  if (problem == std::errc::result_out_of_range) {
    throw ConfigError("{}: {}: {} is too large or too small to represent", node.where, path, text);
  }
  if (problem != std::errc() || end != text.data() + text.size()) {
    throw ConfigError("{}: {}: expected {}, got '{}'", node.where, path, expected, text);
  }
  if (!std::isfinite(static_cast<double>(value))) {
    throw ConfigError("{}: {}: expected a finite number, got '{}'", node.where, path, text);
  }
  check_bound(static_cast<double>(value), text, node, path, bound);
  out = value;
}

// Also where our own reader needs none: another YAML reader must see text, not a number, a truth value or
// nothing.
bool needs_quotes(const std::string& text) {
  constexpr std::string_view kSafe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./ ";
  if (text.empty() || text.front() == ' ' || text.back() == ' ') return true;
  if (text.find_first_not_of(kSafe) != std::string::npos) return true;
  if (std::string_view("-.0123456789").find(text.front()) != std::string_view::npos) return true;
  std::string lower = text;
  for (char& letter : lower) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  for (const std::string_view word : {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}) {
    if (lower == word) return true;
  }
  return false;
}

}  // namespace

void read_value(const Node& node, const std::string& path, const Bound&, bool& out) {
  const std::string& text = scalar(node, path, "true or false");
  if (text != "true" && text != "false") {
    throw ConfigError("{}: {}: expected true or false, got '{}'", node.where, path, text);
  }
  out = text == "true";
}

void read_value(const Node& node, const std::string& path, const Bound& bound, int64_t& out) {
  read_number(node, path, bound, "an integer", out);
}

void read_value(const Node& node, const std::string& path, const Bound& bound, uint64_t& out) {
  read_number(node, path, bound, "an integer of at least 0", out);
}

void read_value(const Node& node, const std::string& path, const Bound& bound, double& out) {
  read_number(node, path, bound, "a number", out);
}

void read_value(const Node& node, const std::string& path, const Bound&, std::string& out) {
  out = node.kind == Node::Kind::kNull ? "" : scalar(node, path, "text");
}

void read_value(const Node& node, const std::string& path, const Bound&, std::vector<std::string>& out) {
  std::vector<std::string> values;
  if (node.kind == Node::Kind::kList) {
    for (const Node& item : node.items) values.push_back(scalar(item, path, "a list of texts"));
  } else if (node.kind != Node::Kind::kNull && !scalar(node, path, "a list of texts").empty()) {
    values.push_back(node.scalar);
  }
  out = std::move(values);
}

std::size_t read_choice(const Node& node, const std::string& path, const std::vector<std::string>& names) {
  const std::string& text = scalar(node, path, "one of " + fmt::format("{}", fmt::join(names, ", ")));
  for (std::size_t index = 0; index < names.size(); ++index) {
    if (names[index] == text) return index;
  }
  throw ConfigError("{}: {}: '{}' is not one of {}", node.where, path, text, fmt::join(names, ", "));
}

void expect_section(const Node& node, const std::string& path) {
  if (node.kind != Node::Kind::kMap && node.kind != Node::Kind::kNull) {
    throw ConfigError("{}: {}: expected a section with keys, got {}", node.where, path,
                      node.kind == Node::Kind::kList ? "a list" : "a single value");
  }
}

void refuse_unknown_keys(const Node& node, const std::string& path, const std::vector<std::string>& known) {
  for (const auto& [key, value] : node.entries) {
    bool is_known = false;
    for (const std::string& name : known) is_known = is_known || name == key;
    if (is_known) continue;
    const std::string nearest = nearest_name(key, known);
    const std::string advice = nearest.empty() ? fmt::format("known here: {}", fmt::join(known, ", "))
                                               : fmt::format("did you mean '{}'?", nearest);
    throw ConfigError("{}: unknown key '{}'; {}", value.where, path.empty() ? key : path + "." + key, advice);
  }
}

std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(int64_t value) { return std::to_string(value); }
std::string text_of(uint64_t value) { return std::to_string(value); }

std::string text_of(double value) {
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, result.ptr};
}

std::string text_of(const std::string& value) {
  if (!needs_quotes(value)) return value;
  std::string quoted = "\"";
  for (const char letter : value) {
    const auto code = static_cast<unsigned char>(letter);
    if (letter == '"' || letter == '\\') quoted += '\\';
    if (letter == '\n') {
      quoted += "\\n";
    } else if (code < 0x20 || code == 0x7F) {
      quoted += fmt::format("\\x{:02x}", code);
    } else {
      quoted += letter;
    }
  }
  return quoted + "\"";
}

std::string text_of(const std::vector<std::string>& value) {
  std::string text = "[";
  for (const std::string& item : value) {
    if (text.size() > 1) text += ", ";
    text += text_of(item);
  }
  return text + "]";
}

std::string text_of(const Bound& bound) {
  const bool has_low = std::isfinite(bound.low), has_high = std::isfinite(bound.high);
  std::string text;
  if (has_low) text += (bound.low_is_excluded ? "above " : "at least ") + text_of(bound.low);
  if (has_low && has_high) text += " and ";
  if (has_high) text += (bound.high_is_excluded ? "below " : "at most ") + text_of(bound.high);
  return text;
}

}  // namespace scrna::config
