#include "lib/train/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"

namespace scrna::train {
namespace {

using Json = nlohmann::json;

constexpr std::array<uint32_t, 256> crc32c_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < table.size(); ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0x82F63B78U : 0U);
    table[byte] = value;
  }
  return table;
}

// Protobuf's wire format: key = field << 3 | type, with type 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
class Message {
 public:
  Message& varint(uint32_t field, uint64_t value) {
    key(field, 0);
    raw_varint(value);
    return *this;
  }
  Message& fixed(uint32_t field, double value) {
    key(field, 1);
    little_endian(std::bit_cast<uint64_t>(value), 8);
    return *this;
  }
  Message& fixed(uint32_t field, float value) {
    key(field, 5);
    little_endian(std::bit_cast<uint32_t>(value), 4);
    return *this;
  }
  Message& bytes(uint32_t field, std::string_view value) {
    key(field, 2);
    raw_varint(value.size());
    bytes_ += value;
    return *this;
  }
  [[nodiscard]] const std::string& text() const { return bytes_; }

 private:
  void key(uint32_t field, uint32_t type) { raw_varint(field << 3 | type); }
  void raw_varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>((value & 0x7F) | 0x80);
    bytes_ += static_cast<char>(value);
  }
  void little_endian(uint64_t value, int num_bytes) {
    for (int byte = 0; byte < num_bytes; ++byte) bytes_ += static_cast<char>(value >> (8 * byte));
  }
  std::string bytes_;
};

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "host";
}

std::string little_endian(uint64_t value, int num_bytes) {
  std::string bytes;
  for (int byte = 0; byte < num_bytes; ++byte) bytes += static_cast<char>(value >> (8 * byte));
  return bytes;
}

}  // namespace

uint32_t masked_crc32c(std::string_view bytes) {
  constexpr std::array kTable = crc32c_table();
  uint32_t crc = 0xFFFFFFFFU;
  for (const char byte : bytes) crc = kTable[(crc ^ static_cast<unsigned char>(byte)) & 0xFF] ^ (crc >> 8);
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U;
}

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& folder, int64_t first_step) {
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  // Readers sort by name, so each file of a run, also one begun in the same second, needs a later name than the last.
  const auto nanoseconds = std::chrono::system_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
  path_ = folder / fmt::format("events.out.tfevents.{}.{}.{}.{:09}", nanoseconds / 1'000'000'000, host_name(), ::getpid(),
                               nanoseconds % 1'000'000'000);
  file_.open(path_, std::ios::binary | std::ios::app);
  if (!file_) throw DataError("{}: cannot be written: {}", path_.string(), std::strerror(errno));
  write_record(Message().fixed(1, wall_seconds()).bytes(3, "brain.Event:2").text());
  constexpr uint64_t kStart = 1;  // SessionLog.START: events of this step and later ones in earlier files are void
  write_record(Message()
                   .fixed(1, wall_seconds())
                   .varint(2, static_cast<uint64_t>(first_step + 1))
                   .bytes(7, Message().varint(1, kStart).text())
                   .text());
  flush();
}

void TensorBoardWriter::append_line(const std::string& metrics_line, bool by_layer) {
  const Json line = Json::parse(metrics_line);
  std::vector<Scalar> scalars;
  for (const auto& [key, value] : line.items()) {
    if (key == "step") continue;
    if (value.is_number()) scalars.push_back({key, value.get<double>()});
    if (!value.is_object() || !by_layer) continue;
    for (const auto& [layer, number] : value.items()) {
      if (number.is_number()) scalars.push_back({key + "/" + layer, number.get<double>()});
    }
  }
  append(line.at("step").get<int64_t>(), scalars);
}

void TensorBoardWriter::append(int64_t step, const std::vector<Scalar>& scalars) {
  Message summary;
  for (const Scalar& scalar : scalars) {
    summary.bytes(1, Message().bytes(1, scalar.tag).fixed(2, static_cast<float>(scalar.value)).text());
  }
  write_record(
      Message().fixed(1, wall_seconds()).varint(2, static_cast<uint64_t>(step)).bytes(5, summary.text()).text());
}

void TensorBoardWriter::write_record(std::string_view event) {
  const std::string length = little_endian(event.size(), 8);
  file_ << length << little_endian(masked_crc32c(length), 4) << event << little_endian(masked_crc32c(event), 4);
  if (!file_) throw DataError("{}: cannot be written: {}", path_.string(), std::strerror(errno));
}

void TensorBoardWriter::flush() {
  file_.flush();
  if (!file_) throw DataError("{}: cannot be written: {}", path_.string(), std::strerror(errno));
}

}  // namespace scrna::train
