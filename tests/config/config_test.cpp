#include "lib/config/config.h"

#include <gtest/gtest.h>

#include <array>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "tests/support/temp_dir.h"

namespace scrna::config {
namespace {

enum class Shape { kRound, kSquare };
constexpr auto enum_names(Shape) {
  return std::array{std::pair{std::string_view("round"), Shape::kRound}, std::pair{std::string_view("square"), Shape::kSquare}};
}

struct Inner {
  double rate = 0.1;
  Shape shape = Shape::kRound;
  template <class V>
  void visit(V&& v) {
    v("rate", rate, "a rate", above(0));
    v("shape", shape, "a shape");
  }
  void validate(const std::string& path) const {
    if (rate > 10 && shape == Shape::kSquare) throw ConfigError("{}: too fast for a square", path);
  }
};

struct Outer {
  int64_t steps = 5;
  uint64_t seed = 42;
  bool flag = false;
  std::string name = "x: y";
  std::vector<std::string> files;
  Inner inner;
  template <class V>
  void visit(V&& v) {
    v("steps", steps, "steps", between(1, 100));
    v("seed", seed, "seed");
    v("flag", flag, "flag");
    v("name", name, "name");
    v("files", files, "files");
    v("inner", inner, "inner things");
  }
};

Outer read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  Node root = parse_text(text, "test.yaml");
  for (const std::string& assignment : overrides) apply_override(root, assignment);
  return from_node<Outer>(root);
}

std::string message_of(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    read(text, overrides);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

#define EXPECT_CONTAINS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(Config, ReadsValuesAndKeepsDefaults) {
  const Outer value = read("steps: 7\ninner: {rate: 2e-3, shape: square}\nfiles: [a, b]\n");
  EXPECT_EQ(value.steps, 7);
  EXPECT_EQ(value.seed, 42U);
  EXPECT_EQ(value.inner.rate, 2e-3);
  EXPECT_EQ(value.inner.shape, Shape::kSquare);
  EXPECT_EQ(value.files, (std::vector<std::string>{"a", "b"}));
}

TEST(Config, AnEmptyFileIsAllDefaults) { EXPECT_EQ(read("").steps, 5); }

TEST(Config, UnknownKeysAreRefusedWithLineAndSuggestion) {
  const std::string message = message_of("steps: 3\ninner:\n  rtae: 1\n");
  EXPECT_CONTAINS(message, "test.yaml line 3");
  EXPECT_CONTAINS(message, "inner.rtae");
  EXPECT_CONTAINS(message, "did you mean 'rate'?");
}

TEST(Config, DuplicateKeysAreRefusedWithBothLines) {
  const std::string message = message_of("steps: 3\nflag: true\nsteps: 4\n");
  EXPECT_CONTAINS(message, "line 3");
  EXPECT_CONTAINS(message, "line 1");
}

TEST(Config, NumbersAreReadStrictly) {
  EXPECT_CONTAINS(message_of("steps: 12abc"), "expected an integer, got '12abc'");
  EXPECT_CONTAINS(message_of("steps: 1.5"), "expected an integer");
  EXPECT_CONTAINS(message_of("steps: 99999999999999999999"), "too large");
  EXPECT_CONTAINS(message_of("seed: -1"), "at least 0");
  EXPECT_CONTAINS(message_of("flag: yes"), "expected true or false");
  EXPECT_CONTAINS(message_of("inner: {rate: nan}"), "must be above 0");
  EXPECT_CONTAINS(message_of("inner: {rate: 1e999}"), "too large");
}

TEST(Config, RangesAreCheckedAndNamed) {
  EXPECT_CONTAINS(message_of("steps: 101"), "test.yaml line 1: steps: must be at least 1 and at most 100, got 101");
  EXPECT_CONTAINS(message_of("inner: {rate: 0}"), "above 0");
}

TEST(Config, ChoicesAreListed) { EXPECT_CONTAINS(message_of("inner: {shape: oval}"), "'oval' is not one of round, square"); }

TEST(Config, OverridesGoThroughTheSameReader) {
  EXPECT_EQ(read("steps: 3", {"steps=9", "inner.rate=5"}).steps, 9);
  EXPECT_EQ(read("", {"files=*.h5ad"}).files, (std::vector<std::string>{"*.h5ad"}));
  EXPECT_EQ(read("", {"files=[a.h5ad, b/*.h5ad]"}).files, (std::vector<std::string>{"a.h5ad", "b/*.h5ad"}));
  EXPECT_CONTAINS(message_of("", {"step=9"}), "--set step: unknown key 'step'; did you mean 'steps'?");
  EXPECT_CONTAINS(message_of("", {"steps"}), "expected key=value");
  EXPECT_CONTAINS(message_of("", {"steps=many"}), "--set steps");
}

TEST(Config, CrossFieldChecksRunAfterReading) {
  EXPECT_CONTAINS(message_of("inner: {rate: 11, shape: square}"), "inner: too fast");
}

TEST(Config, TheDumpReadsBackAsItself) {
  Outer value;
  value.inner.rate = 0.1 + 0.2;
  value.files = {"a b.h5ad", "*.h5ad", "quote\"d"};
  value.name = "- tricky: #not a comment";
  const Outer again = read(dump(value));
  EXPECT_EQ(again.inner.rate, value.inner.rate);
  EXPECT_EQ(again.files, value.files);
  EXPECT_EQ(again.name, value.name);
  EXPECT_EQ(dump(again), dump(value));
}

TEST(Config, DifferencesNameKeyAndBothValues) {
  Outer before, after;
  after.inner.shape = Shape::kSquare;
  const auto changed = differences(before, after);
  ASSERT_EQ(changed.size(), 1U);
  EXPECT_EQ(changed[0].path, "inner.shape");
  EXPECT_EQ(changed[0].before, "round");
  EXPECT_EQ(changed[0].after, "square");
}

TEST(Config, HostileTextEndsInOneError) {
  std::string bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n";
  for (char name = 'b'; name < 'k'; ++name) {
    bomb += fmt::format("{0}: &{0} [*{1},*{1},*{1},*{1},*{1},*{1},*{1},*{1},*{1}]\n", name, static_cast<char>(name - 1));
  }
  EXPECT_CONTAINS(message_of(bomb), "more than");
  EXPECT_CONTAINS(message_of("- a\n- b\n"), "expected sections");
  EXPECT_CONTAINS(message_of("steps: [1"), "not valid YAML");
  EXPECT_CONTAINS(message_of(std::string(100000, '[')), "not valid YAML");
  EXPECT_NE(message_of(std::string("\x00\x01\xff\xfe", 4)), "accepted");
  EXPECT_CONTAINS(message_of("steps: {a: 1}"), "expected an integer, got a section");
  EXPECT_CONTAINS(message_of("inner: 3"), "expected a section");
}

TEST(Config, AMissingFileIsNamed) {
  EXPECT_THROW(load<Outer>("/nonexistent/file.yaml", {}), ConfigError);
}

}  // namespace
}  // namespace scrna::config
