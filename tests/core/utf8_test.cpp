#include "lib/core/utf8.h"

#include <string>

#include <gtest/gtest.h>

namespace scrna {
namespace {

TEST(Utf8, CharactersOfEveryLengthAreKnown) {
  EXPECT_EQ(character_bytes("a"), 1U);
  EXPECT_EQ(character_bytes("\n"), 1U);
  EXPECT_EQ(character_bytes("é"), 2U);
  EXPECT_EQ(character_bytes("€"), 3U);
  EXPECT_EQ(character_bytes("😀"), 4U);
}

TEST(Utf8, WhatIsNoCharacterIsNone) {
  for (const std::string text :
       {"\x01", "\x7f", "\x80", "\xc3", "\xc3(", "\xc0\xaf", "\xe0\x80\xaf", "\xed\xa0\x80",
        "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xff", "\xf0\x9f\x98"}) {
    EXPECT_EQ(character_bytes(text), 0U) << text;
  }
}

TEST(Utf8, OneLineHasNoTabsAndNoLineEnds) {
  EXPECT_TRUE(is_one_line_of_text(""));
  EXPECT_TRUE(is_one_line_of_text("T cell, größer"));
  for (const std::string text : {"a\tb", "a\n", "\r", "a\xff"})
    EXPECT_FALSE(is_one_line_of_text(text)) << text;
  EXPECT_FALSE(is_one_line_of_text(std::string("a\0b", 3)));
}

}  // namespace
}  // namespace scrna
