// The bytes of the format; that TensorBoard itself reads them is tested in tests/oracle.
#include "lib/train/tensorboard.h"

#include <bit>
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/files.h"
#include "tests/support/temp_dir.h"

namespace scrna::train {
namespace {

template <class T>
T number_at(const std::string& bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

std::vector<std::string> records_of(const std::string& bytes) {
  std::vector<std::string> records;
  for (std::size_t at = 0; at < bytes.size();) {
    const auto length = number_at<uint64_t>(bytes, at);
    EXPECT_EQ(number_at<uint32_t>(bytes, at + 8), masked_crc32c(bytes.substr(at, 8)));
    records.push_back(bytes.substr(at + 12, length));
    EXPECT_EQ(number_at<uint32_t>(bytes, at + 12 + length), masked_crc32c(records.back()));
    at += 16 + length;
  }
  return records;
}

TEST(TensorBoard, TheChecksumIsCastagnolisMasked) {
  const uint32_t crc = 0xE3069283;  // of "123456789": the check value of CRC-32C
  EXPECT_EQ(masked_crc32c("123456789"), ((crc >> 15) | (crc << 17)) + 0xA282EAD8U);
}

TEST(TensorBoard, AFileHoldsVersionStartAndTheNumbersOfTheLines) {
  const test::TempDir folder;
  {
    TensorBoardWriter writer(folder / "events", 6);
    writer.append_line(R"({"step":300,"loss":1.5,"mfu":null,"applied":true,"grad_norm_per_layer":{"layer_00":2}})", true);
    writer.append_line(R"({"step":301,"loss":1.5,"grad_norm_per_layer":{"layer_00":2}})", false);
    writer.flush();
  }
  std::vector<std::filesystem::path> files(std::filesystem::directory_iterator(folder / "events"), {});
  ASSERT_EQ(files.size(), 1U);
  const std::vector<std::string> records = records_of(read_file(files[0]));
  ASSERT_EQ(records.size(), 4U);
  // After the wall time (key, 8 bytes) come, as protobuf writes them: field 3, "brain.Event:2"; field 2, 7 and field 7.
  EXPECT_EQ(records[0].substr(9), std::string("\x1a\x0d") + "brain.Event:2");
  EXPECT_EQ(records[1].substr(9), std::string("\x10\x07\x3a\x02\x08\x01"));
  const std::string three_halves("\x00\x00\xc0\x3f", 4), two("\x00\x00\x00\x40", 4);
  const std::string loss = "\x0a\x0b\x0a\x04loss\x15" + three_halves;
  const std::string norm = std::string("\x0a\x23\x0a\x1c") + "grad_norm_per_layer/layer_00" + "\x15" + two;
  EXPECT_EQ(records[2].substr(9), std::string("\x10\xac\x02\x2a") + static_cast<char>(loss.size() + norm.size()) + norm + loss);
  EXPECT_EQ(records[3].substr(9), std::string("\x10\xad\x02\x2a") + static_cast<char>(loss.size()) + loss);
}

}  // namespace
}  // namespace scrna::train
