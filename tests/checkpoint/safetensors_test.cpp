#include "lib/checkpoint/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <random>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "tests/support/expect_error.h"
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

TEST(Safetensors, RoundTripKeepsNamesTypesShapesValuesAndMetadata) {
  const test::TempDir folder;
  Safetensors contents;
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort,
                                  at::kChar, at::kByte, at::kBool}) {
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

// Each would take more memory, more time or other exceptions than a header should.
TEST(Safetensors, HeadersMadeToHurtAreRefused) {
  const std::string tensor = R"("dtype":"F32","data_offsets":[0,0],"shape":)";
  EXPECT_CONTAINS(problem_with(with_header(std::string(10'000'000, '['), "")), "not a JSON object");
  EXPECT_CONTAINS(problem_with(with_header(R"({"a":)" + std::string(100, '[') + std::string(100, ']') + "}", "")), "not a JSON object");
  EXPECT_CONTAINS(problem_with(with_header("{\"a\":{" + tensor + "[0,9223372036854775807,9223372036854775807]}}", "")), "does not fill");
  EXPECT_CONTAINS(problem_with(with_header("{\"a\":{" + tensor + "[0,18446744073709551615]}}", "")), "does not fill");
  EXPECT_CONTAINS(problem_with(with_header("{\"a\":{" + tensor + "3}}", "")), "is not a list of at most 64 sizes");
  EXPECT_CONTAINS(problem_with(with_header("{\"a\":{" + tensor + "{\"b\":1}}}", "")), "is not a list of at most 64 sizes");
  std::string many = "[0";
  for (int i = 0; i < 64; ++i) many += ",1";
  EXPECT_CONTAINS(problem_with(with_header("{\"a\":{" + tensor + many + "]}}", "")), "is not a list of at most 64 sizes");
  const auto with_offsets = [&](const std::string& offsets) {
    return problem_with(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)" + offsets + "}}", "1234"));
  };
  EXPECT_CONTAINS(with_offsets("[18446744073709551615,4]"), "does not fill");
  EXPECT_CONTAINS(with_offsets("[4,0]"), "does not fill");
  EXPECT_CONTAINS(with_offsets("[9223372036854775807,9223372036854775808]"), "does not fill");
  EXPECT_CONTAINS(with_offsets("[0.0,4.0]"), "no valid data_offsets");
  EXPECT_CONTAINS(with_offsets("[0]"), "no valid data_offsets");
  EXPECT_CONTAINS(with_offsets(R"({"0":0,"1":4})"), "no valid data_offsets");
  EXPECT_CONTAINS(problem_with(with_header(R"({"__metadata__":["a"]})", "")), "__metadata__ is not an object");
  EXPECT_CONTAINS(problem_with(with_header("{\"\xff\":{}}", "")), "not a JSON object");
  EXPECT_CONTAINS(problem_with(with_header(R"({"a":{"dtype":3,"shape":[1],"data_offsets":[0,4]}})", "1234")), "dtype, shape, data_offsets");
  EXPECT_CONTAINS(problem_with(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})", "123456789012")),
                  "hole or an overlap");
}

TEST(Safetensors, AHeaderLongerThanTheLimitOrTheFileIsRefusedBeforeMemoryIsTaken) {
  std::string bytes(8, '\0');
  for (const uint64_t size : {uint64_t{100'000'001}, ~uint64_t{0}, uint64_t{1} << 63, uint64_t{9}}) {
    std::memcpy(bytes.data(), &size, 8);
    EXPECT_CONTAINS(problem_with(bytes + "{}"), "says its header has");
  }
}

// The same 5,000 damaged files in every run; whatever they hold, reading ends in tensors or in a CheckpointError.
TEST(Safetensors, DamagedFilesEndInTensorsOrInACheckpointError) {
  const test::TempDir folder;
  Safetensors contents;
  contents.tensors.emplace_back("w", at::arange(6).to(at::kFloat).view({2, 3}));
  contents.tensors.emplace_back("b", at::arange(3));
  contents.metadata["k"] = "v";
  save_safetensors(folder / "good", contents);
  const std::string good = read_file(folder / "good");
  const std::string alphabet = "0123456789-.eE,:[]{}\" \\F3264IBOLU";
  int num_read = 0, num_refused = 0;
  for (uint64_t round = 0; round < 5000; ++round) {
    std::mt19937_64 random(round);
    std::string bytes = good;
    for (uint64_t edit = 0; edit < 1 + random() % 3 && !bytes.empty(); ++edit) {
      const std::size_t at = random() % bytes.size();
      switch (random() % 5) {
        case 0: bytes[at] = static_cast<char>(random()); break;
        case 1: bytes[at] = alphabet[random() % alphabet.size()]; break;
        case 2: bytes.insert(at, 1, alphabet[random() % alphabet.size()]); break;
        case 3: bytes.erase(at, 1 + random() % 8); break;
        default: bytes.resize(at);
      }
    }
    std::filesystem::remove(folder / "bad");  // to cut off and fill again an existing file makes ext4 write to disk
    std::ofstream(folder / "bad", std::ios::binary) << bytes;
    try {
      load_safetensors(folder / "bad");
      ++num_read;
    } catch (const CheckpointError&) {
      ++num_refused;
    }
  }
  EXPECT_GT(num_read, 100) << "damage to the values is not damage to the format";
  EXPECT_GT(num_refused, 1000);
}

TEST(Safetensors, AMissingFileIsNamed) { EXPECT_THROW(load_safetensors("/nonexistent.safetensors"), CheckpointError); }

}  // namespace
}  // namespace scrna::checkpoint
