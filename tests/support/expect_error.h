// What an expression throws, as text, for tests of error messages.
#pragma once

#include <string>

#include <gtest/gtest.h>

namespace scrna::test {

/// The message of the E that `run` throws; "nothing was thrown" otherwise. Other exceptions fail the test.
template <class E, class Run>
std::string message_of(const Run& run) {
  try {
    run();
  } catch (const E& error) {
    return error.what();
  }
  return "nothing was thrown";
}

}  // namespace scrna::test

#define EXPECT_CONTAINS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)
