#include "lib/config/config.h"

#include <array>
#include <random>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "tests/support/temp_dir.h"

namespace scrna::config {
namespace {

enum class Shape { kRound, kSquare };
constexpr auto enum_names(Shape) {
  return std::array{std::pair{std::string_view("round"), Shape::kRound},
                    std::pair{std::string_view("square"), Shape::kSquare}};
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

// A field after a section, for the order in the reference.
struct Nested {
  Inner first;
  int64_t last = 3;
  template <class V>
  void visit(V&& v) {
    v("first", first, "the first section");
    v("last", last, "either | or", at_least(1));
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
  EXPECT_CONTAINS(message_of("inner: {rate: nan}"), "expected a finite number");
  EXPECT_CONTAINS(message_of("inner: {rate: inf}"), "expected a finite number");
  EXPECT_CONTAINS(message_of("inner: {rate: 1e-999}"), "too small");
  EXPECT_CONTAINS(message_of("steps: +-5"), "expected an integer, got '+-5'");
  EXPECT_CONTAINS(message_of("steps: +"), "expected an integer");
  EXPECT_CONTAINS(message_of("steps:"), "expected an integer, got nothing");
  EXPECT_EQ(read("steps: +5").steps, 5);
  EXPECT_CONTAINS(message_of("inner: {rate: 1e999}"), "too large");
}

TEST(Config, RangesAreCheckedAndNamed) {
  EXPECT_CONTAINS(message_of("steps: 101"),
                  "test.yaml line 1: steps: must be at least 1 and at most 100, got 101");
  EXPECT_CONTAINS(message_of("inner: {rate: 0}"), "above 0");
}

TEST(Config, ChoicesAreListed) {
  EXPECT_CONTAINS(message_of("inner: {shape: oval}"), "'oval' is not one of round, square");
}

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

TEST(Config, EveryTextSurvivesTheDump) {
  for (const std::string text : {"null",
                                 "Null",
                                 "~",
                                 "TRUE",
                                 "no",
                                 "1e5",
                                 "007",
                                 ".5",
                                 "-",
                                 "---",
                                 "...",
                                 "#x",
                                 "a #b",
                                 "a: b",
                                 "'q'",
                                 "\"",
                                 "\\",
                                 "a\tb",
                                 "a\rb",
                                 "a\r\nb",
                                 "x\n\n y\n",
                                 "\x01\x7f",
                                 "[",
                                 "{",
                                 "%d",
                                 "@",
                                 "`",
                                 "|",
                                 ">",
                                 "!",
                                 "&a",
                                 "*b",
                                 "?",
                                 "<<",
                                 "=",
                                 " lead",
                                 "trail ",
                                 "\xc3\xa9",
                                 "\xc2\x85",
                                 "\xe2\x80\xa8",
                                 "\xf0\x9f\xa7\xac",
                                 ""}) {
    Outer value;
    value.name = text;
    value.files = {text, "next", text};
    const Outer again = read(dump(value));
    EXPECT_EQ(again.name, text);
    EXPECT_EQ(again.files, value.files) << text;
    EXPECT_EQ(dump(again), dump(value));
  }
}

TEST(Config, NumbersSurviveTheDumpBitForBit) {
  for (const double number : {0.1, 1e-4, 1.0 / 3.0, 5e-324, 1.7976931348623157e308, 123456789012345680.0}) {
    Outer value;
    value.inner.rate = number;
    EXPECT_EQ(read(dump(value)).inner.rate, number);
  }
  Outer value;
  value.seed = 18446744073709551615ULL;
  EXPECT_EQ(read(dump(value)).seed, value.seed);
}

TEST(Config, AnEmptyValueIsAnEmptyList) {
  EXPECT_TRUE(read("files: [a, b]", {"files="}).files.empty());
  EXPECT_TRUE(read("files:").files.empty());
  EXPECT_EQ(read("files: [\"\"]").files, std::vector<std::string>{""});
}

TEST(Config, TheReferenceGroupsFieldsUnderTheirSection) {
  EXPECT_EQ(reference_markdown<Nested>(),
            "\n| key | type | default | range | meaning |\n|---|---|---|---|---|\n"
            "| `last` | integer | `3` | at least 1 | either \\| or |\n"
            "\n### `first`: the first section\n"
            "\n| key | type | default | range | meaning |\n|---|---|---|---|---|\n"
            "| `first.rate` | number | `0.1` | above 0 | a rate |\n"
            "| `first.shape` | round or square | `round` |   | a shape |\n");
}

TEST(Config, AliasesAnchorsAndTagsAreRefusedWithTheirLine) {
  EXPECT_CONTAINS(message_of("name: x\nfiles: [*n]\n"),
                  "not valid YAML: the referenced anchor is not defined");
  EXPECT_CONTAINS(message_of("name: x\nfiles: &a [*a]\n"),
                  "test.yaml line 2: anchors and tags are not supported");
  EXPECT_CONTAINS(message_of("files: [a]\nname: &n hello\n"), "line 2: anchors and tags");
  EXPECT_CONTAINS(message_of("&a {inner: *a}\n"), "line 1: anchors and tags");
  EXPECT_CONTAINS(message_of("name: !!binary 5\n"), "anchors and tags");
  EXPECT_CONTAINS(message_of("files: !include\n"), "anchors and tags");
}

TEST(Config, TextBeyondAllMeasureIsRefused) {
  EXPECT_CONTAINS(message_of("name: " + std::string(100'000, 'x')), "a single value of 100000 bytes");
  EXPECT_CONTAINS(message_of("name: " + std::string(5'000'000, 'x')), "too many for a configuration");
  EXPECT_CONTAINS(message_of("name: " + std::string(40, '[') + std::string(40, ']')), "levels deep");
  std::string keys;
  for (int i = 0; i < 90'000; ++i) keys += fmt::format("key{}: 1\n", i);
  EXPECT_CONTAINS(message_of(keys), "line 1001: more than 1000 keys");
  for (const char opener : {'[', '{'})
    EXPECT_CONTAINS(message_of(std::string(100'000, opener)), "levels deep");
  for (const std::string_view opener : {"- ", "? ", "a: &b "}) {
    std::string text;
    for (int i = 0; i < 50'000; ++i) text += opener;
    EXPECT_NE(message_of(text), "accepted") << opener;
  }
}

TEST(Config, WhatIsNotUtf8TextIsRefusedWithItsLine) {
  EXPECT_CONTAINS(message_of(std::string("steps: 1\nname: a\0b", 18)),
                  "test.yaml line 2: byte 0x00 is no UTF-8 text");
  EXPECT_CONTAINS(message_of("\x89HDF\r\n\x1a\n"), "byte 0x89");
  for (const std::string bytes : {"caf\xe9", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82",
                                  "\xf8\x88\x80\x80\x80", "\x1b[2J"}) {
    EXPECT_CONTAINS(message_of("name: \"" + bytes + "\""), "is no UTF-8 text");
    EXPECT_CONTAINS(message_of("", {"name=" + bytes}), "is no UTF-8 text");
  }
}

TEST(Config, ASecondDocumentIsRefusedAndNotIgnored) {
  EXPECT_CONTAINS(message_of("steps: 1\n---\nsteps: 2\n"), "test.yaml line 2: expected the end of the file");
  EXPECT_EQ(read("--- \nsteps: 9\n...\n").steps, 9);
}

TEST(Config, AStrayCommaDoesNotTurnTheFileIntoDefaults) {
  EXPECT_CONTAINS(message_of(",steps: 9\n"), "expected the end of the file");
  EXPECT_CONTAINS(message_of("]\nsteps: 9\n"), "line 1");
}

TEST(Config, TheWrongShapeIsNamed) {
  EXPECT_CONTAINS(message_of("- a\n- b\n"), "expected sections");
  EXPECT_CONTAINS(message_of("steps: [1"), "not valid YAML");
  EXPECT_CONTAINS(message_of("steps: {a: 1}"), "expected an integer, got a section");
  EXPECT_CONTAINS(message_of("inner: 3"), "expected a section with keys, got a single value");
  EXPECT_CONTAINS(message_of("inner: [rate]"), "expected a section with keys, got a list");
  EXPECT_CONTAINS(message_of("[a]: 1"), "a key must be a plain word");
  EXPECT_CONTAINS(message_of("files: [[a]]"), "expected a list of texts, got a list");
  EXPECT_CONTAINS(message_of("", {"inner=3"}), "--set inner: inner: expected a section");
  EXPECT_CONTAINS(message_of("", {"inner..rate=3"}), "a part of the key is empty");
  EXPECT_CONTAINS(message_of("", {"files=[a"}), "not valid YAML");
}

// Not a search for crashes in yaml-cpp as much as for our own: whatever 2,000 damaged files hold, reading
// ends in a value or in a ConfigError.
TEST(Config, DamagedFilesNeverEndInAnythingButAConfigError) {
  const std::string good =
      "steps: 7\nseed: 1\nflag: true\nname: \"a: b\"\nfiles: [a, b]\ninner:\n  rate: 2e-3\n  shape: "
      "square\n";
  const std::string alphabet = "\n\t :-[]{},&*!|>'\"%@`#?<~0aé";
  std::mt19937 random(7);
  int64_t refused = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string text = good;
    for (int edit = 0; edit < 1 + round % 5; ++edit) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = alphabet[random() % alphabet.size()];
          break;
        case 1:
          text.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        default:
          text.erase(at, 1 + random() % 4);
      }
    }
    if (message_of(text) != "accepted") ++refused;  // any other exception fails the test
  }
  EXPECT_GT(refused, 500);
  EXPECT_LT(refused, 2000);
}

TEST(Config, AMissingFileIsNamed) { EXPECT_THROW(load<Outer>("/nonexistent/file.yaml", {}), ConfigError); }

}  // namespace
}  // namespace scrna::config
