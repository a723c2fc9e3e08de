#include "lib/config/node.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdint>

#include "lib/core/error.h"
#include "lib/core/files.h"

namespace scrna::config {
namespace {

// No sane configuration is larger; aliases inside aliases would otherwise expand without bound.
constexpr int64_t kMaxNodes = 100'000;
constexpr std::size_t kMaxBytes = 4 << 20;

class Converter {
 public:
  explicit Converter(std::string name) : name_(std::move(name)) {}

  Node convert(const YAML::Node& yaml) {
    if (++num_nodes_ > kMaxNodes) {
      throw ConfigError("{}: more than {} values; this is not a configuration of scrna-train", name_, kMaxNodes);
    }
    Node node;
    node.where = where(yaml.Mark());
    if (yaml.IsScalar()) {
      node.kind = Node::Kind::kScalar;
      node.scalar = yaml.Scalar();
    } else if (yaml.IsSequence()) {
      node.kind = Node::Kind::kList;
      for (const auto& item : yaml) node.items.push_back(convert(item));
    } else if (yaml.IsMap()) {
      node.kind = Node::Kind::kMap;
      for (const auto& entry : yaml) {
        const std::string at = where(entry.first.Mark());
        if (!entry.first.IsScalar()) throw ConfigError("{}: a key must be a plain word", at);
        const std::string& key = entry.first.Scalar();
        if (const Node* earlier = node.find(key)) {
          throw ConfigError("{}: key '{}' is given twice (first: {}); remove one", at, key, earlier->where);
        }
        Node value = convert(entry.second);
        value.where = at;
        node.entries.emplace_back(key, std::move(value));
      }
    }
    return node;
  }

 private:
  [[nodiscard]] std::string where(const YAML::Mark& mark) const {
    return mark.line < 0 ? name_ : fmt::format("{} line {}", name_, mark.line + 1);
  }
  std::string name_;
  int64_t num_nodes_ = 0;
};

Node parse(const std::string& text, const std::string& name) {
  if (text.size() > kMaxBytes) throw ConfigError("{}: {} bytes are too many for a configuration", name, text.size());
  try {
    return Converter(name).convert(YAML::Load(text));
  } catch (const YAML::Exception& problem) {
    throw ConfigError("{} line {}: not valid YAML: {} (text with * & ! : or # in it must stand in quotes)", name,
                      problem.mark.line + 1, problem.msg);
  }
}

}  // namespace

const Node* Node::find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name == key) return &value;
  }
  return nullptr;
}

Node parse_text(const std::string& text, const std::string& name) {
  Node root = parse(text, name);
  if (root.kind == Node::Kind::kNull) root.kind = Node::Kind::kMap;
  if (root.kind != Node::Kind::kMap) throw ConfigError("{}: expected sections such as 'train:', got something else", name);
  return root;
}

Node parse_file(const std::filesystem::path& path) {
  std::string text;
  try {
    text = read_file(path);
  } catch (const DataError& problem) {
    throw ConfigError("configuration {}", problem.what());
  }
  return parse_text(text, path.string());
}

void apply_override(Node& root, const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw ConfigError("--set {}: expected key=value, for example --set train.steps=100", assignment);
  }
  const std::string path = assignment.substr(0, equals);
  const std::string text = assignment.substr(equals + 1);
  const std::string where = "--set " + path;
  Node* node = &root;
  std::size_t begin = 0;
  while (true) {
    const std::size_t dot = path.find('.', begin);
    const std::string key = path.substr(begin, dot == std::string::npos ? dot : dot - begin);
    if (key.empty()) throw ConfigError("--set {}: a part of the key is empty", assignment);
    if (node->kind != Node::Kind::kMap) {  // a scalar given earlier gives way: its own error would only confuse
      *node = Node{.kind = Node::Kind::kMap, .scalar = {}, .items = {}, .entries = {}, .where = where};
    }
    auto found = std::find_if(node->entries.begin(), node->entries.end(), [&](const auto& entry) { return entry.first == key; });
    if (found == node->entries.end()) {
      node->entries.emplace_back(key, Node{.kind = Node::Kind::kNull, .scalar = {}, .items = {}, .entries = {}, .where = where});
      found = std::prev(node->entries.end());
    }
    node = &found->second;
    if (dot == std::string::npos) break;
    if (node->kind == Node::Kind::kNull) node->kind = Node::Kind::kMap;
    begin = dot + 1;
  }
  Node value;
  if (!text.empty() && text.front() == '[') {
    value = parse(text, where);
    for (Node& item : value.items) item.where = where;
  } else {
    value.kind = Node::Kind::kScalar;
    value.scalar = text;
  }
  value.where = where;
  *node = std::move(value);
}

}  // namespace scrna::config
