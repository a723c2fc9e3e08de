#include "lib/config/node.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <sstream>

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/utf8.h"

namespace scrna::config {
namespace {

// No sane configuration is larger. The limits bound what aliases can expand to (an alias may even stand
// inside what it names) and what the look-up of duplicate keys costs.
constexpr int64_t kMaxNodes = 100'000;
constexpr int kMaxDepth = 32;
constexpr std::size_t kMaxKeys = 1000;
constexpr std::size_t kMaxBytes = 4 << 20;
constexpr std::size_t kMaxScalarBytes = 64 << 10;

// Printable characters, tab and line ends only: yaml-cpp would quietly replace or drop anything else.
void expect_text(std::string_view text, const std::string& name) {
  int64_t line = 1;
  while (!text.empty()) {
    const std::size_t length = character_bytes(text);
    if (length == 0) {
      throw ConfigError("{} line {}: byte 0x{:02x} is no UTF-8 text; is this a configuration file?", name,
                        line, static_cast<unsigned char>(text.front()));
    }
    if (text.front() == '\n') ++line;
    text.remove_prefix(length);
  }
}

// Builds the tree from yaml-cpp's parse events. YAML::Load is not used: it returns nothing at all for text
// that begins with a stray ',' (LoadAll then never ends), ignores further documents, and lets an alias stand
// inside what it names.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(std::string name) : name_(std::move(name)) {}
  Node take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++num_documents_ > 1) {
      throw ConfigError(
          "{}: expected the end of the file; only one YAML document is read ('---' begins another)",
          where(mark));
    }
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    add(make(Node::Kind::kNull, mark, "?", anchor));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    throw ConfigError(
        "{}: aliases are not supported; write the value out, or quote text that begins with '*'",
        where(mark));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    Node node = make(Node::Kind::kScalar, mark, tag, anchor);
    if (value.size() > kMaxScalarBytes) {
      throw ConfigError("{}: a single value of {} bytes; at most {} are accepted", node.where, value.size(),
                        kMaxScalarBytes);
    }
    node.scalar = value;
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(make(Node::Kind::kList, mark, tag, anchor));
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(make(Node::Kind::kMap, mark, tag, anchor));
  }
  void OnMapEnd() override { close(); }

 private:
  // A list or map whose end has not come yet; `key` waits for its value.
  struct Unfinished {
    Node node;
    std::optional<Node> key = std::nullopt;
  };

  [[nodiscard]] std::string where(const YAML::Mark& mark) const {
    return fmt::format("{} line {}", name_, std::max(0, mark.line) + 1);
  }

  Node make(Node::Kind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    Node node;
    node.kind = kind;
    node.where = where(mark);
    if (++num_nodes_ > kMaxNodes) throw ConfigError("{}: more than {} values", node.where, kMaxNodes);
    // "?" and "!" are yaml-cpp's words for a plain and a quoted value without a tag.
    if (anchor != 0 || !(tag.empty() || tag == "?" || tag == "!")) {
      throw ConfigError("{}: anchors and tags are not supported; quote text that begins with '&' or '!'",
                        node.where);
    }
    return node;
  }

  void open(Node node) {
    if (unfinished_.size() >= kMaxDepth)
      throw ConfigError("{}: more than {} levels deep", node.where, kMaxDepth);
    unfinished_.push_back({std::move(node)});
  }

  void close() {
    Node node = std::move(unfinished_.back().node);
    unfinished_.pop_back();
    add(std::move(node));
  }

  void add(Node node) {
    if (unfinished_.empty()) {
      root_ = std::move(node);
      return;
    }
    auto& [parent, key] = unfinished_.back();
    if (parent.kind == Node::Kind::kList) {
      parent.items.push_back(std::move(node));
    } else if (key) {
      node.where = key->where;
      parent.entries.emplace_back(key->scalar, std::move(node));
      key.reset();
    } else {
      if (node.kind != Node::Kind::kScalar) throw ConfigError("{}: a key must be a plain word", node.where);
      if (const Node* earlier = parent.find(node.scalar)) {
        throw ConfigError("{}: key '{}' is given twice (first: {}); remove one", node.where, node.scalar,
                          earlier->where);
      }
      if (parent.entries.size() == kMaxKeys)
        throw ConfigError("{}: more than {} keys in one section", node.where, kMaxKeys);
      key = std::move(node);
    }
  }

  std::string name_;
  Node root_;
  std::vector<Unfinished> unfinished_;
  int num_documents_ = 0;
  int64_t num_nodes_ = 0;
};

Node parse(const std::string& text, const std::string& name) {
  if (text.size() > kMaxBytes)
    throw ConfigError("{}: {} bytes are too many for a configuration", name, text.size());
  expect_text(text, name);
  try {
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    Builder builder(name);
    // The second call finds nothing, or something that OnDocumentStart refuses.
    if (parser.HandleNextDocument(builder)) parser.HandleNextDocument(builder);
    return builder.take_root();
  } catch (const YAML::Exception& problem) {
    throw ConfigError("{} line {}: not valid YAML: {} (text with * & ! : or # in it must stand in quotes)",
                      name, std::max(0, problem.mark.line) + 1, problem.msg);
  }
}

}  // namespace

Node::Node() = default;
Node::Node(Kind kind_of_it, std::string place) : kind(kind_of_it), where(std::move(place)) {}
Node::Node(const Node&) = default;
Node::Node(Node&&) noexcept = default;
Node& Node::operator=(const Node&) = default;
Node& Node::operator=(Node&&) noexcept = default;
Node::~Node() = default;

const Node* Node::find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name == key) return &value;
  }
  return nullptr;
}

Node parse_text(const std::string& text, const std::string& name) {
  Node root = parse(text, name);
  if (root.kind == Node::Kind::kNull) root.kind = Node::Kind::kMap;
  if (root.kind != Node::Kind::kMap)
    throw ConfigError("{}: expected sections such as 'train:', got something else", name);
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
  expect_text(assignment, "--set");
  Node* node = &root;
  std::size_t begin = 0;
  while (true) {
    const std::size_t dot = path.find('.', begin);
    const std::string key = path.substr(begin, dot == std::string::npos ? dot : dot - begin);
    if (key.empty()) throw ConfigError("--set {}: a part of the key is empty", assignment);
    if (node->kind !=
        Node::Kind::kMap) {  // a scalar given earlier gives way: its own error would only confuse
      *node = Node(Node::Kind::kMap, where);
    }
    auto found = std::find_if(node->entries.begin(), node->entries.end(),
                              [&](const auto& entry) { return entry.first == key; });
    if (found == node->entries.end()) {
      node->entries.emplace_back(
          key, Node(Node::Kind::kNull, where));
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
