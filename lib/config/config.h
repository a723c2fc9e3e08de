// Declare-once configuration. A struct names each field once, in visit(): key, member, help, range. Reading,
// refusing unknown keys, --set, dumping, the reference table and the comparison of two configurations are
// visitors:
//
//   struct OptimConfig {
//     double learning_rate = 1e-4;
//     template <class V> void visit(V&& v) { v("learning_rate", learning_rate, "peak learning rate",
//     above(0)); } void validate(const std::string& path) const;   // optional: what concerns several fields
//   };
//
// Enums are written by name: an enum_names(E) found beside the enum. Rejected: one big table of strings,
// which lets the table and the struct drift apart.
#pragma once

#include <concepts>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "lib/config/bound.h"
#include "lib/config/node.h"
#include "lib/config/values.h"

namespace scrna::config {

/// One declared field or section with its current value, as text.
struct Entry {
  std::string path;   // "optim.learning_rate"
  std::string type;   // "number", "sigmoid or softmax", "" for a section
  std::string value;  // YAML text
  std::string help;
  std::string range;  // "above 0", or empty
  bool is_section = false;
};

struct Difference {
  std::string path, before, after;
};

/// `names`: paths of settings, or of whole sections with a dot at the end.
bool is_among(std::span<const std::string_view> names, std::string_view path);

template <class T>
concept Section = requires(T value) {
  value.visit([](auto&&...) {});
};
template <class T>
concept NamedEnum = std::is_enum_v<T> && requires(T value) {
  enum_names(value);
};

/// The name of an enum's value, as a configuration writes it.
template <NamedEnum T>
constexpr std::string_view name_of(T value) {
  for (const auto& [name, item] : enum_names(value)) {
    if (item == value) return name;
  }
  return {};
}

namespace detail {

inline std::string join(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : path + "." + std::string(key);
}

template <NamedEnum T>
std::vector<std::string> names_of(T value) {
  std::vector<std::string> names;
  for (const auto& [name, unused] : enum_names(value)) names.emplace_back(name);
  return names;
}

template <class C>
void read_section(const Node& node, const std::string& path, C& out) {
  expect_section(node, path);
  std::vector<std::string> known;
  out.visit([&](std::string_view key, auto& member, std::string_view /*help*/, Bound bound = {}) {
    using Member = std::remove_cvref_t<decltype(member)>;
    known.emplace_back(key);
    const Node* child = node.find(key);
    if (child == nullptr) return;
    const std::string child_path = join(path, key);
    if constexpr (Section<Member>) {
      read_section(*child, child_path, member);
    } else if constexpr (NamedEnum<Member>) {
      member = enum_names(member)[read_choice(*child, child_path, names_of(member))].second;
    } else {
      read_value(*child, child_path, bound, member);
    }
  });
  refuse_unknown_keys(node, path, known);
}

template <class C>
void validate_section(C& value, const std::string& path) {
  value.visit([&](std::string_view key, auto& member, std::string_view /*help*/, Bound /*bound*/ = {}) {
    if constexpr (Section<std::remove_cvref_t<decltype(member)>>) validate_section(member, join(path, key));
  });
  if constexpr (requires { value.validate(path); }) value.validate(path);
}

template <class C>
void collect_entries(C& value, const std::string& path, std::vector<Entry>& out) {
  value.visit([&](std::string_view key, auto& member, std::string_view help, Bound bound = {}) {
    using Member = std::remove_cvref_t<decltype(member)>;
    Entry entry{
        .path = join(path, key), .type = {}, .value = {}, .help = std::string(help), .range = text_of(bound)};
    if constexpr (Section<Member>) {
      entry.is_section = true;
      out.push_back(entry);
      collect_entries(member, join(path, key), out);
    } else {
      if constexpr (NamedEnum<Member>) {
        for (const auto& [name, item] : enum_names(member)) {
          entry.type += (entry.type.empty() ? "" : " or ") + std::string(name);
          if (item == member) entry.value = std::string(name);
        }
      } else {
        entry.type = std::string(type_name(member));
        entry.value = text_of(member);
      }
      out.push_back(entry);
    }
  });
}

}  // namespace detail

/// Every declared field of `value`, in order of declaration.
template <Section C>
std::vector<Entry> entries(const C& value) {
  C copy = value;  // visit() is one non-const template for reading and writing
  std::vector<Entry> out;
  detail::collect_entries(copy, "", out);
  return out;
}

/// Reads a tree over the defaults of C and validates. Throws ConfigError saying file, line, key, expected and
/// got.
template <Section C>
C from_node(const Node& root) {
  C value;
  detail::read_section(root, "", value);
  detail::validate_section(value, "");
  return value;
}

/// The file's settings over the defaults, then the overrides ("key=value") over both.
template <Section C>
C load(const std::filesystem::path& file, std::span<const std::string> overrides) {
  Node root = parse_file(file);
  for (const std::string& assignment : overrides) apply_override(root, assignment);
  return from_node<C>(root);
}

std::string dump(std::span<const Entry> entries);
std::string reference_markdown(std::span<const Entry> entries);
std::vector<Difference> differences(std::span<const Entry> before, std::span<const Entry> after);

/// YAML with the help of every field as comment; reads back as the same configuration.
template <Section C>
std::string dump(const C& value) {
  return dump(entries(value));
}
/// A Markdown table per section: key, type, default, range, meaning.
template <Section C>
std::string reference_markdown() {
  return reference_markdown(entries(C{}));
}
template <Section C>
std::vector<Difference> differences(const C& before, const C& after) {
  return differences(entries(before), entries(after));
}

}  // namespace scrna::config
