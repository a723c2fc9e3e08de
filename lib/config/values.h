// Conversion of one value: strict reading from a Node with its range, and the text that reads back as the
// same value. A misread number would cost days of training, so "12abc", 1.5 for an integer or an overflow are
// errors.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/config/bound.h"
#include "lib/config/node.h"

namespace scrna::config {

void read_value(const Node& node, const std::string& path, const Bound& bound, bool& out);
void read_value(const Node& node, const std::string& path, const Bound& bound, int64_t& out);
void read_value(const Node& node, const std::string& path, const Bound& bound, uint64_t& out);
void read_value(const Node& node, const std::string& path, const Bound& bound, double& out);
void read_value(const Node& node, const std::string& path, const Bound& bound, std::string& out);
/// A list, or one plain value as a list of one; an empty value is an empty list.
void read_value(const Node& node, const std::string& path, const Bound& bound, std::vector<std::string>& out);
/// Index of the scalar in `names`. Throws ConfigError listing the names.
std::size_t read_choice(const Node& node, const std::string& path, const std::vector<std::string>& names);
/// Throws ConfigError when a section got something other than a map.
void expect_section(const Node& node, const std::string& path);
/// Throws ConfigError naming the nearest known key when the section holds a key that is not known.
void refuse_unknown_keys(const Node& node, const std::string& path, const std::vector<std::string>& known);

std::string text_of(bool value);
std::string text_of(int64_t value);
std::string text_of(uint64_t value);
std::string text_of(double value);  // shortest text that reads back as the same double
std::string text_of(const std::string& value);
std::string text_of(const std::vector<std::string>& value);
std::string text_of(const Bound& bound);

constexpr std::string_view type_name(const bool&) { return "true or false"; }
constexpr std::string_view type_name(const int64_t&) { return "integer"; }
constexpr std::string_view type_name(const uint64_t&) { return "integer"; }
constexpr std::string_view type_name(const double&) { return "number"; }
constexpr std::string_view type_name(const std::string&) { return "text"; }
constexpr std::string_view type_name(const std::vector<std::string>&) { return "list of texts"; }

}  // namespace scrna::config
