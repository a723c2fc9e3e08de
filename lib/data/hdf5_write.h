// Writing with the HDF5 C API: groups, attributes and data sets as AnnData encodes them, and 1-d data sets
// that grow. Everything throws DataError with HDF5's reason (disk full ...). Callers hold hdf5_mutex().
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "lib/data/hdf5.h"

namespace scrna::data::h5 {

/// Element types that are written. kText is UTF-8 of variable length.
enum class ElementType { kInt8, kInt32, kInt64, kFloat32, kFloat64, kText };

/// Creates or empties a file.
Handle create_file(const std::filesystem::path& path);
/// Opens an existing file to add to it.
Handle open_file_for_writing(const std::filesystem::path& path);
/// Everything to disk, then closes: what the destructor of a Handle cannot report is reported here.
void close_file(Handle file, const std::filesystem::path& path);

Handle create_group(const Handle& parent, const std::string& name);
[[nodiscard]] bool has_member(const Handle& parent, const std::string& name);
Handle open_group(const Handle& parent, const std::string& name);
/// The attributes `encoding-type` and `encoding-version` that say what an object is.
void set_encoding(const Handle& object, const std::string& type, const std::string& version);
void set_attribute(const Handle& object, const std::string& name, const std::string& text);
void set_attribute(const Handle& object, const std::string& name, const std::vector<std::string>& texts);
void set_attribute(const Handle& object, const std::string& name, const std::vector<int64_t>& values);
/// Of an object that may have it or not.
void remove_attribute(const Handle& object, const std::string& name);
/// As h5py writes a bool.
void set_bool_attribute(const Handle& object, const std::string& name,
                        bool value);  // no overload: texts convert to bool

/// A scalar with its AnnData encoding (string, numeric-scalar).
void write_scalar(const Handle& parent, const std::string& name, const std::string& text);
void write_scalar(const Handle& parent, const std::string& name, int64_t value);
void write_scalar(const Handle& parent, const std::string& name, double value);

/// A 1-d data set that grows, gzip with shuffle, with the encoding `array` or `string-array`.
class Appender {
 public:
  Appender(const Handle& parent, const std::string& name, ElementType type, int gzip_level);
  void append(std::span<const int8_t> values);
  void append(std::span<const int32_t> values);
  void append(std::span<const int64_t> values);
  void append(std::span<const float> values);
  void append(std::span<const double> values);
  void append(std::span<const std::string> texts);
  [[nodiscard]] uint64_t size() const { return size_; }

 private:
  void append_raw(std::size_t count, hid_t memory_type, const void* values);

  std::string where_;  // for messages
  Handle dataset_;
  ElementType type_;
  uint64_t size_ = 0;
};

/// A 2-d float32 data set of fixed size, not compressed, with the encoding `array`.
class MatrixWriter {
 public:
  MatrixWriter(const Handle& parent, const std::string& name, int64_t num_rows, int64_t num_columns);
  /// Rows [first, first + count), one after another.
  void write(int64_t first, int64_t count, const float* values);

 private:
  std::string where_;  // for messages
  Handle dataset_;
  int64_t num_columns_;
};

}  // namespace scrna::data::h5
