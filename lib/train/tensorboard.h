// TensorBoard's event files, written without TensorFlow: the lines of metrics.jsonl as scalars. A file is a row of TFRecords
//
//   uint64 length | uint32 masked CRC-32C of those 8 bytes | `length` bytes | uint32 masked CRC-32C of them    (little-endian)
//
// and each record a protobuf message tensorflow.Event, of which we write wall_time (1), step (2), file_version (3), summary
// (5: value (1): tag (1), simple_value (2)) and session_log (7: status (1)). Rejected: the protobuf library, for five fields.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

namespace scrna::train {

/// CRC-32C (Castagnoli) as TFRecord masks it.
uint32_t masked_crc32c(std::string_view bytes);

class TensorBoardWriter {
 public:
  struct Scalar {
    std::string tag;
    double value = 0;  // written as fp32
  };

  /// A new file in `folder` (created if needed) for a run that goes on after `first_step` steps: TensorBoard then forgets
  /// what earlier files say of later steps. Throws DataError.
  TensorBoardWriter(const std::filesystem::path& folder, int64_t first_step);

  /// The numbers of one line of metrics.jsonl, tagged by their keys ("grad_norm", "grad_norm_per_layer/layer_00"); null is
  /// left out. Those by layer are written only with by_layer. Throws DataError when the disk is full.
  void append_line(const std::string& metrics_line, bool by_layer);
  void append(int64_t step, const std::vector<Scalar>& scalars);
  void flush();

 private:
  void write_record(std::string_view event);

  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace scrna::train
