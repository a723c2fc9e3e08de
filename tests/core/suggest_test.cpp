#include "lib/core/suggest.h"

#include <gtest/gtest.h>

#include <vector>

namespace scrna {
namespace {

TEST(Suggest, FindsTheNearestName) {
  const std::vector<std::string> known{"learning_rate", "weight_decay", "warmup_steps"};
  EXPECT_EQ(nearest_name("warmup_step", known), "warmup_steps");
  EXPECT_EQ(nearest_name("learing_rate", known), "learning_rate");
}

TEST(Suggest, SaysNothingWhenNothingIsNear) {
  const std::vector<std::string> known{"learning_rate"};
  EXPECT_EQ(nearest_name("x", known), "");
  EXPECT_EQ(nearest_name("completely_other_words", known), "");
}

TEST(Suggest, CountsEdits) {
  EXPECT_EQ(edit_distance("", "abc"), 3U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
}

}  // namespace
}  // namespace scrna
