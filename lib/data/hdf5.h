// A thin RAII layer over the HDF5 C API: handles that close themselves, HDF5's error stack turned into
// DataError, and reading that checks sizes before it takes memory. Links that leave the file (external links,
// virtual data sets, external storage) are refused. The HDF5 library has one lock; every public function of
// lib/data that reaches HDF5 holds hdf5_mutex(). Reading and writing of .h5ad are built on this and include
// no HDF5 calls of their own beyond it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <hdf5.h>

namespace scrna::data::h5 {

std::recursive_mutex& hdf5_mutex();

/// Owns one HDF5 identifier of any kind (all are closed by H5Idec_ref).
class Handle {
 public:
  Handle() = default;
  explicit Handle(hid_t id) : id_(id) {}
  ~Handle() { reset(); }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, H5I_INVALID_HID)) {}
  Handle& operator=(Handle&& other) noexcept;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  [[nodiscard]] hid_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }

 private:
  void reset();
  hid_t id_ = H5I_INVALID_HID;
};

enum class NumberKind { kNone, kInteger, kFloat, kBoolean };

/// A data set open for reading, or one field of a data set of records (a compound type).
class Dataset {
 public:
  /// Throws DataError: contents in other files, a filter that is missing, sizes that the file cannot hold.
  static Dataset open(hid_t parent, const std::string& path, const std::string& where, uint64_t file_bytes);
  [[nodiscard]] const std::string& where() const { return where_; }  // "file.h5ad:/X/data", for messages
  [[nodiscard]] const std::vector<uint64_t>& shape() const { return shape_; }
  [[nodiscard]] uint64_t num_elements() const;
  [[nodiscard]] NumberKind number_kind() const { return kind_; }
  [[nodiscard]] bool is_text() const { return is_text_; }
  /// "int32", "float64", "bool", "text", ...
  [[nodiscard]] std::string type_name() const;
  /// Names of the fields of records; empty for other data sets.
  [[nodiscard]] std::vector<std::string> field_names() const;
  /// One field of the records, as a data set of its own.
  [[nodiscard]] Dataset field(const std::string& name) const;

  /// Elements [first, first + count) of a 1-d data set, converted by HDF5 (values out of range are clipped).
  void read(uint64_t first, uint64_t count, int32_t* out) const;
  void read(uint64_t first, uint64_t count, int64_t* out) const;
  void read(uint64_t first, uint64_t count, float* out) const;
  void read(uint64_t first, uint64_t count, double* out) const;
  /// Rows [first, first + count) of a 2-d data set, all columns.
  void read_rows(uint64_t first, uint64_t count, float* out) const;
  /// All of a 1-d data set of text, fixed or variable length; of a single text, a list of one.
  [[nodiscard]] std::vector<std::string> read_text() const;
  /// All of a 1-d data set of numbers; of a single number, a list of one.
  [[nodiscard]] std::vector<int64_t> read_integers() const;
  [[nodiscard]] std::vector<double> read_doubles() const;

  /// For ChunkReader, which asks HDF5 by itself; callers hold hdf5_mutex().
  [[nodiscard]] hid_t id() const { return handle_.get(); }
  [[nodiscard]] hid_t type_id() const { return type_.get(); }
  [[nodiscard]] bool is_field() const { return !field_.empty(); }
  [[nodiscard]] uint64_t file_bytes() const { return file_bytes_; }

 private:
  Dataset(Handle handle, Handle type, std::string where, std::vector<uint64_t> shape, uint64_t file_bytes,
          std::string field = {});
  [[nodiscard]] Handle in_memory(hid_t type) const;  // the type, inside a record when this is a field
  void read_block(const std::vector<hsize_t>& start, const std::vector<hsize_t>& count, hid_t type,
                  void* out) const;
  template <class T>
  [[nodiscard]] std::vector<T> read_all(hid_t type) const;
  Handle handle_;
  Handle type_;  // of an element, or of the field
  std::string where_;
  std::string field_;
  std::vector<uint64_t> shape_;
  uint64_t file_bytes_;
  NumberKind kind_ = NumberKind::kNone;
  bool is_text_ = false;
};

enum class ObjectKind { kMissing, kGroup, kDataset };

/// A group open for reading; paths below it are relative ("raw/X").
class Group {
 public:
  Group(Handle handle, std::string where, uint64_t file_bytes)
      : handle_(std::move(handle)), where_(std::move(where)), file_bytes_(file_bytes) {}
  [[nodiscard]] const std::string& where() const { return where_; }
  /// Throws DataError for a link that leads to another file, nowhere or in a circle.
  [[nodiscard]] ObjectKind kind_of(const std::string& path) const;
  [[nodiscard]] bool has(const std::string& path) const { return kind_of(path) != ObjectKind::kMissing; }
  [[nodiscard]] Group group(const std::string& path) const;
  [[nodiscard]] Dataset dataset(const std::string& path) const;
  /// Names of members, in the order of the file's index (by name).
  [[nodiscard]] std::vector<std::string> members() const;
  /// Attribute of the group itself, or of member `path`; nullopt when absent or of another type.
  [[nodiscard]] std::optional<std::string> text_attribute(const std::string& name,
                                                          const std::string& path = ".") const;
  [[nodiscard]] std::optional<std::vector<std::string>> text_list_attribute(
      const std::string& name, const std::string& path = ".") const;
  /// Also of whole numbers that were stored as floating-point ones, as R does.
  [[nodiscard]] std::optional<std::vector<int64_t>> integer_list_attribute(const std::string& name) const;

 private:
  Handle handle_;
  std::string where_;
  uint64_t file_bytes_;
};

/// Opens a file's root. Throws DataError: missing, a folder, not HDF5 (saying what it looks like), truncated.
Group open_file(const std::filesystem::path& path);

/// The newest messages of HDF5's error stack in one line, and clears it.
std::string hdf5_reason();

}  // namespace scrna::data::h5
