// A configuration text as a plain tree that remembers where each value was written. yaml-cpp parses and is
// then out of the way: its types would cost every user of a config struct its headers, and it accepts
// duplicate keys in silence.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace scrna::config {

struct Node {
  enum class Kind { kNull, kScalar, kList, kMap };

  // Written out, in node.cpp: clang 14 would need the size of an entry inside this struct.
  Node();
  explicit Node(Kind kind_of_it, std::string place);
  Node(const Node&);
  Node(Node&&) noexcept;
  Node& operator=(const Node&);
  Node& operator=(Node&&) noexcept;
  ~Node();

  Kind kind = Kind::kNull;
  std::string scalar;
  std::vector<Node> items;                            // kList
  std::vector<std::pair<std::string, Node>> entries;  // kMap, in order of writing; keys are unique
  std::string where;                                  // "run.yaml line 4", "--set train.steps"

  [[nodiscard]] const Node* find(std::string_view key) const;
};

/// Throws ConfigError for a missing or unreadable file, bytes that are not UTF-8 text, broken YAML, duplicate
/// keys, several documents, a document that is not a map, or one beyond all measure (depth, number of values,
/// length).
Node parse_file(const std::filesystem::path& path);
/// The same for text in memory; `name` stands for the file in messages.
Node parse_text(const std::string& text, const std::string& name);
/// Puts "a.b.c=value" into the tree, replacing what was there. A value in [ ] is a YAML list, anything else
/// is taken letter by letter (so that data.files=*.h5ad needs no quoting for YAML). Throws ConfigError.
void apply_override(Node& root, const std::string& assignment);

}  // namespace scrna::config
