// Evaluation of data.filter. A test of a column of categories is decided once per category, then looked up
// per cell. A missing value equals nothing and is neither larger nor smaller than anything, so `!=` and `not
// in` take it, as in pandas; `not` turns every answer around.
#include "lib/data/obs_filter.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/suggest.h"

namespace scrna::data {
namespace {

using Kind = FilterValue::Kind;
using Test = FilterNode::Test;

std::optional<bool> truth_of(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (text == "true") return true;
  if (text == "false") return false;
  return std::nullopt;
}

std::optional<double> number_of(const std::string& text) {
  double number = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

bool holds(Test test, double left, double right) {
  switch (test) {
    case Test::kLess:
      return left < right;
    case Test::kLessEqual:
      return left <= right;
    case Test::kGreater:
      return left > right;
    case Test::kGreaterEqual:
      return left >= right;
    default:
      return left == right;
  }
}

std::string examples_of(const std::vector<std::string>& categories) {
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(3, categories.size()); ++i)
    text += fmt::format("{}'{}'", i == 0 ? "" : ", ", categories[i]);
  return categories.size() > 3 ? text + ", ..." : text;
}

class Evaluation {
 public:
  Evaluation(const AnnDataFile& file, const std::string& name,
             std::map<std::string, std::string>& unknown_values)
      : file_(file), name_(name), unknown_values_(unknown_values) {}

  std::vector<bool> run(const FilterNode& node) {
    if (node.kind == FilterNode::Kind::kTest) return test(node);
    std::vector<bool> result = run(*node.parts.front());
    if (node.kind == FilterNode::Kind::kNot) result.flip();
    for (std::size_t part = 1; part < node.parts.size(); ++part) {
      const std::vector<bool> other = run(*node.parts[part]);
      for (std::size_t cell = 0; cell < result.size(); ++cell)
        result[cell] =
            node.kind == FilterNode::Kind::kAnd ? result[cell] && other[cell] : result[cell] || other[cell];
    }
    return result;
  }

 private:
  [[noreturn]] void fail(const FilterNode& node, std::size_t position, const std::string& what) const {
    throw DataError("{}: {}, at character {}: column '{}' {}", file_.path().string(), name_, position,
                    node.column, what);
  }

  std::vector<bool> test(const FilterNode& node) {
    const std::vector<std::string> columns = file_.obs_columns();
    if (std::find(columns.begin(), columns.end(), node.column) == columns.end()) {
      if (node.may_be_absent) return absent(node);
      const std::string nearest = nearest_name(node.column, columns);
      fail(node, node.position,
           fmt::format(
               "is not in obs; {}{}", nearest.empty() ? "" : "did you mean '" + nearest + "'? ",
               columns.empty() ? "obs has no columns" : fmt::format("it has: {}", fmt::join(columns, ", "))));
    }
    switch (file_.obs_kind(node.column)) {
      case ColumnKind::kInteger:
      case ColumnKind::kFloat:
        return test_numbers(node);
      case ColumnKind::kCategorical:
      case ColumnKind::kText:
      case ColumnKind::kBoolean:
        return test_categories(node);
      case ColumnKind::kOther:
        break;
    }
    fail(node, node.position, "has an encoding that is not read");
  }

  // No cell has a value. Its texts are unknown here; if they are so in every file, the name is probably mistaken.
  std::vector<bool> absent(const FilterNode& node) {
    for (const FilterValue& value : node.values)
      unknown_values_.emplace(fmt::format("{} of '{}'", shown(value), node.column), "");
    return std::vector<bool>(static_cast<std::size_t>(file_.num_cells()), false);
  }

  std::vector<bool> test_numbers(const FilterNode& node) const {
    const std::vector<double> numbers = file_.obs_numbers(node.column);
    const bool has_other_than_truth = std::any_of(numbers.begin(), numbers.end(), [](double number) {
      return !std::isnan(number) && number != 0 && number != 1;
    });
    if (node.test == Test::kIsTrue && has_other_than_truth)
      fail(node, node.position, "holds numbers and cannot stand alone; compare it with one");
    std::vector<bool> result(numbers.size(), false);
    const auto add = [&](double right) {
      for (std::size_t cell = 0; cell < numbers.size(); ++cell)  // NaN holds in no comparison
        if (holds(node.test, numbers[cell], right)) result[cell] = true;
    };
    if (node.test == Test::kIsTrue) add(1);
    for (const FilterValue& value : node.values) {
      if (value.kind == Kind::kText)
        fail(node, value.position,
             fmt::format("holds numbers; expected a number, got the text '{}'", value.text));
      if (value.kind == Kind::kTruth && has_other_than_truth)
        fail(node, value.position,
             fmt::format("holds numbers other than 0 and 1; expected a number, got {}", value.text));
      add(value.kind == Kind::kTruth ? static_cast<double>(value.truth) : value.number);
    }
    return result;
  }

  std::vector<bool> test_categories(const FilterNode& node) {
    const CategoryColumn column = file_.obs_categories(node.column);
    std::vector<bool> holds_for(column.categories.size(), false);
    if (node.test == Test::kIsTrue)
      add_category_matches(node,
                           {.kind = Kind::kTruth, .text = "true", .truth = true, .position = node.position},
                           column, holds_for);
    for (const FilterValue& value : node.values) add_category_matches(node, value, column, holds_for);
    std::vector<bool> result(column.codes.size(), false);
    for (std::size_t cell = 0; cell < result.size(); ++cell)
      result[cell] = column.codes[cell] >= 0 && holds_for[static_cast<std::size_t>(column.codes[cell])];
    return result;
  }

  void add_category_matches(const FilterNode& node, const FilterValue& value, const CategoryColumn& column,
                            std::vector<bool>& holds_for) {
    const std::vector<std::string>& categories = column.categories;
    const bool is_order = node.test != Test::kEqual && node.test != Test::kIsTrue;
    if (is_order && value.kind != Kind::kNumber)
      fail(node, value.position, fmt::format("can only be ordered against a number, got {}", shown(value)));
    bool is_comparable = categories.empty() || value.kind == Kind::kText, is_known = false;
    for (std::size_t i = 0; i < categories.size(); ++i) {
      bool matches = false;
      if (value.kind == Kind::kText) {
        matches = categories[i] == value.text;
      } else if (value.kind == Kind::kNumber) {
        const std::optional<double> number = number_of(categories[i]);
        is_comparable = is_comparable || number.has_value();
        matches = number && holds(node.test, *number, value.number);
      } else {
        const std::optional<bool> truth = truth_of(categories[i]);
        is_comparable = is_comparable || truth.has_value();
        matches = truth == value.truth;
      }
      is_known = is_known || matches;
      if (matches) holds_for[i] = true;
    }
    if (!is_comparable)
      fail(node, value.position,
           node.test == Test::kIsTrue
               ? fmt::format("holds texts ({}) and cannot stand alone; compare it with one",
                             examples_of(categories))
               : fmt::format("holds texts ({}); expected a text in quotes, got {}", examples_of(categories),
                             value.text));
    if (value.kind == Kind::kText && !is_known) {
      unknown_values_.emplace(fmt::format("{} of '{}'", shown(value), node.column),
                              nearest_name(value.text, categories));
    }
  }

  static std::string shown(const FilterValue& value) {
    return value.kind == Kind::kText ? "'" + value.text + "'" : value.text;
  }

  const AnnDataFile& file_;
  const std::string& name_;
  std::map<std::string, std::string>& unknown_values_;
};

}  // namespace

ObsFilter::Result ObsFilter::choose(const AnnDataFile& file) const {
  Result result;
  result.chosen = Evaluation(file, name_, result.unknown_values).run(*root_);
  return result;
}

}  // namespace scrna::data
