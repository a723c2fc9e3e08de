// The grammar of data.filter, by recursive descent:
//   or    := and ("or" and)*          and := not ("and" not)*          not := "not" not | "(" or ")" | test
//   test  := column [("==" | "!=" | "<" | "<=" | ">" | ">=") value | ["not"] "in" "[" value ("," value)* "]"]
//          | value comparison column
//   value := 'text' | "text" | number | true | false          column := (name | `any name`) ["?"]
#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <optional>
#include <utility>

#include "lib/core/error.h"
#include "lib/data/obs_filter.h"

namespace scrna::data {
namespace {

using Node = std::unique_ptr<FilterNode>;
using Test = FilterNode::Test;

constexpr int kMaxDepth = 100;  // of parentheses and `not`

struct Token {
  enum class Kind { kEnd, kWord, kQuotedColumn, kText, kNumber, kSymbol };
  Kind kind = Kind::kEnd;
  std::string text;                // of texts and quoted columns: what stands between the quotes
  std::size_t begin = 0, end = 0;  // bytes of the expression
};

bool begins_word(unsigned char c) { return std::isalpha(c) != 0 || c == '_' || c >= 0x80; }
// Dots, hyphens and the like are common in the names of obs columns, and no operator here.
bool continues_word(unsigned char c) {
  return begins_word(c) || std::isdigit(c) != 0 || c == '.' || c == '-' || c == ':' || c == '/';
}

class Parser {
 public:
  Parser(std::string_view text, const std::string& name) : text_(text), name_(name) { advance(); }

  Node parse() {
    Node root = parse_or(0);
    if (token_.kind != Token::Kind::kEnd) fail("expected 'and', 'or' or the end");
    return root;
  }

 private:
  [[noreturn]] void fail_at(std::size_t byte, const std::string& what) const {
    std::string rest(text_.substr(std::min(byte, text_.size())));
    rest.resize(whole_characters(rest, 24));
    std::replace_if(
        rest.begin(), rest.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
    throw ConfigError("{}: at character {}, {}: {}", name_, position_of(byte),
                      rest.empty() ? "the end" : fmt::format("before <{}>", rest), what);
  }
  [[noreturn]] void fail(const std::string& what) const { fail_at(token_.begin, what); }

  // Characters are counted, not bytes: continuation bytes of UTF-8 do not count.
  [[nodiscard]] std::size_t position_of(std::size_t byte) const {
    return 1 + static_cast<std::size_t>(
                   std::count_if(text_.begin(), text_.begin() + static_cast<std::ptrdiff_t>(byte),
                                 [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; }));
  }
  static std::size_t whole_characters(std::string_view text, std::size_t most) {
    if (text.size() <= most) return text.size();
    while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0U) == 0x80U) --most;
    return most;
  }

  // ---- tokens
  void advance() {
    std::size_t at = token_.end;
    while (at < text_.size() && std::isspace(static_cast<unsigned char>(text_[at])) != 0) ++at;
    token_ = {.begin = at, .end = at};
    if (at == text_.size()) return;
    const auto first = static_cast<unsigned char>(text_[at]);
    if (first == '\'' || first == '"' || first == '`') return read_quoted(text_[at]);
    if (begins_word(first)) {
      token_.kind = Token::Kind::kWord;
      while (token_.end < text_.size() && continues_word(static_cast<unsigned char>(text_[token_.end])))
        ++token_.end;
    } else if (std::isdigit(first) != 0 || first == '-' || first == '+' || first == '.') {
      token_.kind = Token::Kind::kNumber;
      while (token_.end < text_.size() &&
             (continues_word(static_cast<unsigned char>(text_[token_.end])) || text_[token_.end] == '+'))
        ++token_.end;
    } else {
      token_.kind = Token::Kind::kSymbol;
      const std::string_view rest = text_.substr(at);
      constexpr std::array<std::string_view, 6> kLong = {"==", "!=", "<=", ">=", "&&", "||"};
      const bool is_long =
          std::any_of(kLong.begin(), kLong.end(), [&](auto each) { return rest.starts_with(each); });
      token_.end = at + (is_long ? 2 : 1);
    }
    token_.text = text_.substr(at, token_.end - at);
  }

  // A backslash takes the next character as it is.
  void read_quoted(char quote) {
    token_.kind = quote == '`' ? Token::Kind::kQuotedColumn : Token::Kind::kText;
    for (std::size_t at = token_.begin + 1; at < text_.size(); ++at) {
      if (text_[at] == quote) {
        token_.end = at + 1;
        return;
      }
      if (text_[at] == '\\' && at + 1 < text_.size()) ++at;
      token_.text += text_[at];
    }
    fail_at(token_.begin, fmt::format("the quotation that begins here has no end ({})", quote));
  }

  [[nodiscard]] bool is_word(std::string_view word) const {
    return token_.kind == Token::Kind::kWord && token_.text == word;
  }
  [[nodiscard]] bool is_symbol(std::string_view symbol) const {
    return token_.kind == Token::Kind::kSymbol && token_.text == symbol;
  }
  bool take_word(std::string_view word) {
    if (!is_word(word)) return false;
    advance();
    return true;
  }

  // ---- grammar
  Node parse_or(int depth) { return parse_chain(depth, "or", FilterNode::Kind::kOr); }

  Node parse_chain(int depth, std::string_view word, FilterNode::Kind kind) {
    const auto parse_part = [&] {
      return kind == FilterNode::Kind::kOr ? parse_chain(depth, "and", FilterNode::Kind::kAnd)
                                           : parse_not(depth);
    };
    Node first = parse_part();
    if (!is_word(word)) return first;
    auto chain = std::make_unique<FilterNode>();
    chain->kind = kind;
    chain->parts.push_back(std::move(first));
    while (take_word(word)) chain->parts.push_back(parse_part());
    return chain;
  }

  Node parse_not(int depth) {
    if (depth > kMaxDepth) fail(fmt::format("parentheses and 'not' are nested more than {} deep", kMaxDepth));
    if (take_word("not")) return negated(parse_not(depth + 1));
    if (is_symbol("(")) {
      advance();
      Node inner = parse_or(depth + 1);
      if (!is_symbol(")")) fail("expected 'and', 'or' or ')'");
      advance();
      return inner;
    }
    return parse_test();
  }

  static Node negated(Node inner) {
    auto node = std::make_unique<FilterNode>();
    node->kind = FilterNode::Kind::kNot;
    node->parts.push_back(std::move(inner));
    return node;
  }

  Node parse_test() {
    auto node = std::make_unique<FilterNode>();
    if (std::optional<FilterValue> value = take_value()) {  // 200 < n_genes
      const auto [test, is_negated] = take_comparison();
      node->values.push_back(std::move(*value));
      node->test = test == Test::kLess           ? Test::kGreater
                   : test == Test::kLessEqual    ? Test::kGreaterEqual
                   : test == Test::kGreater      ? Test::kLess
                   : test == Test::kGreaterEqual ? Test::kLessEqual
                                                 : test;
      take_column(*node);
      return is_negated ? negated(std::move(node)) : std::move(node);
    }
    take_column(*node);
    if (is_word("in") || is_word("not")) {
      const bool is_negated = take_word("not");
      if (!take_word("in")) fail("expected 'in' after 'not'");
      take_list(*node);
      return is_negated ? negated(std::move(node)) : std::move(node);
    }
    if (token_.kind == Token::Kind::kEnd || is_symbol(")") || is_word("and") || is_word("or")) return node;
    const auto [test, is_negated] = take_comparison();
    node->test = test;
    std::optional<FilterValue> value = take_value();
    if (!value) fail_expecting_value();
    node->values.push_back(std::move(*value));
    return is_negated ? negated(std::move(node)) : std::move(node);
  }

  void take_column(FilterNode& node) {
    const bool is_name =
        token_.kind == Token::Kind::kQuotedColumn || (token_.kind == Token::Kind::kWord && !is_word("and") &&
                                                      !is_word("or") && !is_word("not") && !is_word("in"));
    if (!is_name)
      fail("expected the name of an obs column (names with spaces stand in backticks: `cell type`)");
    if (token_.text.empty()) fail("the name of the column is empty");
    node.column = token_.text;
    node.position = position_of(token_.begin);
    advance();
    if (!is_symbol("?")) return;
    node.may_be_absent = true;
    advance();
  }

  std::pair<Test, bool> take_comparison() {
    constexpr std::array<std::pair<std::string_view, Test>, 6> kTests = {{{"==", Test::kEqual},
                                                                          {"!=", Test::kEqual},
                                                                          {"<", Test::kLess},
                                                                          {"<=", Test::kLessEqual},
                                                                          {">", Test::kGreater},
                                                                          {">=", Test::kGreaterEqual}}};
    for (const auto& [symbol, test] : kTests) {
      if (!is_symbol(symbol)) continue;
      advance();
      return {test, symbol == "!="};
    }
    if (is_symbol("=")) fail("expected a comparison; did you mean '=='?");
    if (is_symbol("&&") || is_symbol("&")) fail("expected a comparison; did you mean 'and'?");
    if (is_symbol("||") || is_symbol("|")) fail("expected a comparison; did you mean 'or'?");
    fail("expected ==, !=, <, <=, >, >=, in or not in");
  }

  void take_list(FilterNode& node) {
    node.test = Test::kEqual;
    if (!is_symbol("[")) fail("expected a list of values: ['a', 'b']");
    do {
      advance();
      std::optional<FilterValue> value = take_value();
      if (!value) fail_expecting_value();
      node.values.push_back(std::move(*value));
    } while (is_symbol(","));
    if (!is_symbol("]")) fail("expected ',' or ']'");
    advance();
  }

  [[noreturn]] void fail_expecting_value() const {
    fail(token_.kind == Token::Kind::kWord
             ? fmt::format("expected a value; texts stand in quotes: '{}'", token_.text)
             : "expected a value: a text in quotes, a number, true or false");
  }

  std::optional<FilterValue> take_value() {
    FilterValue value{.text = token_.text, .position = position_of(token_.begin)};
    if (token_.kind == Token::Kind::kText) {
      value.kind = FilterValue::Kind::kText;
    } else if (token_.kind == Token::Kind::kNumber) {
      value.kind = FilterValue::Kind::kNumber;
      const std::string_view digits = std::string_view(token_.text).substr(token_.text[0] == '+' ? 1 : 0);
      const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), value.number);
      if (problem != std::errc{} || end != digits.data() + digits.size()) fail("this is no number");
    } else if (is_word("true") || is_word("false") || is_word("True") || is_word("False")) {
      value.kind = FilterValue::Kind::kTruth;
      value.truth = token_.text == "true" || token_.text == "True";
    } else {
      return std::nullopt;
    }
    advance();
    return value;
  }

  std::string_view text_;
  const std::string& name_;
  Token token_;
};

}  // namespace

ObsFilter ObsFilter::parse(std::string_view text, std::string name) {
  ObsFilter filter;
  filter.name_ = std::move(name);
  filter.root_ = Parser(text, filter.name_).parse();
  return filter;
}

}  // namespace scrna::data
