#include "lib/checkpoint/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstring>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "tests/support/temp_dir.h"

namespace scrna::checkpoint {
namespace {

std::string with_header(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &size, 8);
  return bytes + header + data;
}

std::string problem_with(const std::string& bytes) {
  const test::TempDir folder;
  write_file_atomically(folder / "t.safetensors", bytes);
  try {
    load_safetensors(folder / "t.safetensors");
  } catch (const CheckpointError& error) {
    return error.what();
  }
  return "accepted";
}

#define EXPECT_CONTAINS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

TEST(Safetensors, RoundTripKeepsNamesTypesShapesValuesAndMetadata) {
  const test::TempDir folder;
  Safetensors contents;
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kByte}) {
    contents.tensors.emplace_back(std::string("t.") + c10::toString(type), at::arange(6).to(type).view({2, 3}));
  }
  contents.tensors.emplace_back("empty", at::zeros({0, 4}));
  contents.tensors.emplace_back("scalar", at::zeros({}));
  contents.tensors.emplace_back("strided", at::arange(6).view({2, 3}).t());
  contents.metadata["vocabulary"] = "abc \"quoted\" \n";
  save_safetensors(folder / "a.safetensors", contents);
  const Safetensors loaded = load_safetensors(folder / "a.safetensors");
  ASSERT_EQ(loaded.tensors.size(), contents.tensors.size());
  for (std::size_t i = 0; i < loaded.tensors.size(); ++i) {
    EXPECT_EQ(loaded.tensors[i].first, contents.tensors[i].first);
    EXPECT_EQ(loaded.tensors[i].second.scalar_type(), contents.tensors[i].second.scalar_type());
    EXPECT_TRUE(at::equal(loaded.tensors[i].second, contents.tensors[i].second)) << loaded.tensors[i].first;
  }
  EXPECT_EQ(loaded.metadata, contents.metadata);
}

TEST(Safetensors, HostileFilesAreRefusedWithTheReason) {
  EXPECT_CONTAINS(problem_with("abc"), "shorter than 8 bytes");
  EXPECT_CONTAINS(problem_with(std::string(8, '\xff')), "says its header has");
  EXPECT_CONTAINS(problem_with(with_header("{]", "")), "not a JSON object");
  EXPECT_CONTAINS(problem_with(with_header("[1]", "")), "not a JSON object");
  EXPECT_CONTAINS(problem_with(with_header(R"({"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}})", "1234")), "unknown dtype 'F99'");
  EXPECT_CONTAINS(problem_with(with_header(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", "1234")), "negative");
  EXPECT_CONTAINS(problem_with(with_header(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", "1234")), "does not fill");
  EXPECT_CONTAINS(problem_with(with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", "1234")), "does not fill");
  EXPECT_CONTAINS(problem_with(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "12345678")), "hole or an overlap");
  EXPECT_CONTAINS(problem_with(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234")), "hole or an overlap");
  EXPECT_CONTAINS(problem_with(with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "1234")), "truncated");
  EXPECT_CONTAINS(problem_with(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "12345678")), "truncated or damaged");
  EXPECT_CONTAINS(problem_with(with_header(R"({"a":{"shape":[1]}})", "")), "dtype, shape, data_offsets");
  EXPECT_CONTAINS(problem_with(with_header(R"({"a":{"dtype":"F32","shape":[1e30],"data_offsets":[0,4]}})", "1234")), "fractional");
  EXPECT_CONTAINS(problem_with(with_header(R"({"__metadata__":{"k":1}})", "")), "is not text");
}

TEST(Safetensors, AMissingFileIsNamed) { EXPECT_THROW(load_safetensors("/nonexistent.safetensors"), CheckpointError); }

}  // namespace
}  // namespace scrna::checkpoint
