#include "lib/data/hdf5_write.h"

#include <algorithm>
#include <array>
#include <utility>

#include "lib/core/error.h"

namespace scrna::data::h5 {
namespace {

// When a disk is full, HDF5 cannot close what it could not write, and its own exit handler then crashes on it
// (1.10.8, in H5D_close). Every file is closed by its owner here, so the handler has no task; this call must
// precede all others.
[[maybe_unused]] const bool kNoExitHandler = H5dont_atexit() >= 0;

constexpr hsize_t kNumberChunk = 65536;  // elements; 256 KiB of float32, about 30 cells of 2,000 genes
constexpr hsize_t kTextChunk = 4096;

// The system's own words ("No space left on device") out of HDF5's long list, if it holds them.
std::string reason() {
  const std::string all = hdf5_reason();
  const std::string key = "error message = '";
  const std::size_t begin = all.find(key);
  if (begin == std::string::npos) return all;
  const std::size_t end = all.find('\'', begin + key.size());
  return all.substr(begin + key.size(), end - begin - key.size());
}

Handle checked(hid_t id, const std::string& what) {
  if (id < 0) throw DataError("{}: cannot write: {}", what, reason());
  return Handle(id);
}
void checked_status(herr_t status, const std::string& what) {
  if (status < 0) throw DataError("{}: cannot write: {}", what, reason());
}

// "cells.h5ad: /obs/_index", for messages.
std::string where(const Handle& parent, const std::string& name) {
  std::array<char, 1024> file{}, group{};
  H5Fget_name(parent.get(), file.data(), file.size());
  H5Iget_name(parent.get(), group.data(), group.size());
  std::string path = file.data();
  path.resize(std::min(path.size(), path.find(".tmp-")));  // the name it will have (lib/core/files.h)
  return fmt::format("{}: {}{}{}", path, group.data(), group[0] != '\0' && group[1] != '\0' ? "/" : "", name);
}

Handle text_type() {
  Handle type = checked(H5Tcopy(H5T_C_S1), "text type");
  checked_status(H5Tset_size(type.get(), H5T_VARIABLE), "text type");
  checked_status(H5Tset_cset(type.get(), H5T_CSET_UTF8), "text type");
  return type;
}

Handle bool_type() {
  Handle type = checked(H5Tenum_create(H5T_NATIVE_INT8), "bool type");
  const int8_t no = 0, yes = 1;
  checked_status(H5Tenum_insert(type.get(), "FALSE", &no), "bool type");
  checked_status(H5Tenum_insert(type.get(), "TRUE", &yes), "bool type");
  return type;
}

// Creation properties without modification times: equal content gives equal files.
Handle timeless(hid_t property_class) {
  Handle properties = checked(H5Pcreate(property_class), "properties");
  checked_status(H5Pset_obj_track_times(properties.get(), false), "properties");
  return properties;
}

Handle scalar_space() { return checked(H5Screate(H5S_SCALAR), "scalar"); }
Handle line_space(hsize_t size) { return checked(H5Screate_simple(1, &size, nullptr), "data space"); }

void write_attribute(const Handle& object, const std::string& name, hid_t type, const Handle& space,
                     const void* value) {
  const Handle attribute =
      checked(H5Acreate2(object.get(), name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
              where(object, name));
  checked_status(H5Awrite(attribute.get(), type, value), where(object, name));
}

Handle write_scalar_value(const Handle& parent, const std::string& name, hid_t type, const void* value) {
  const Handle space = scalar_space();
  const Handle properties = timeless(H5P_DATASET_CREATE);
  Handle dataset = checked(H5Dcreate2(parent.get(), name.c_str(), type, space.get(), H5P_DEFAULT,
                                      properties.get(), H5P_DEFAULT),
                           where(parent, name));
  checked_status(H5Dwrite(dataset.get(), type, H5S_ALL, H5S_ALL, H5P_DEFAULT, value), where(parent, name));
  return dataset;
}

Handle stored_type(ElementType type) {
  switch (type) {
    case ElementType::kInt8:
      return checked(H5Tcopy(H5T_STD_I8LE), "type");
    case ElementType::kInt32:
      return checked(H5Tcopy(H5T_STD_I32LE), "type");
    case ElementType::kInt64:
      return checked(H5Tcopy(H5T_STD_I64LE), "type");
    case ElementType::kFloat32:
      return checked(H5Tcopy(H5T_IEEE_F32LE), "type");
    case ElementType::kFloat64:
      return checked(H5Tcopy(H5T_IEEE_F64LE), "type");
    case ElementType::kText:
      return text_type();
  }
  throw InternalError("unknown element type {}", static_cast<int>(type));
}

}  // namespace

Handle create_file(const std::filesystem::path& path) {
  checked_status(H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr),
                 path.string());  // errors are thrown, not printed
  const Handle properties = timeless(H5P_FILE_CREATE);
  return checked(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, properties.get(), H5P_DEFAULT), path.string());
}

Handle open_file_for_writing(const std::filesystem::path& path) {
  checked_status(H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr), path.string());
  return checked(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), path.string());
}

void close_file(Handle file, const std::filesystem::path& path) {
  checked_status(H5Fflush(file.get(), H5F_SCOPE_GLOBAL), path.string());
}

Handle create_group(const Handle& parent, const std::string& name) {
  const Handle properties = timeless(H5P_GROUP_CREATE);
  return checked(H5Gcreate2(parent.get(), name.c_str(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
                 where(parent, name));
}

bool has_member(const Handle& parent, const std::string& name) {
  const htri_t found = H5Lexists(parent.get(), name.c_str(), H5P_DEFAULT);
  checked_status(found, where(parent, name));
  return found > 0;
}

Handle open_group(const Handle& parent, const std::string& name) {
  return checked(H5Gopen2(parent.get(), name.c_str(), H5P_DEFAULT), where(parent, name));
}

void set_encoding(const Handle& object, const std::string& type, const std::string& version) {
  set_attribute(object, "encoding-type", type);
  set_attribute(object, "encoding-version", version);
}

void set_attribute(const Handle& object, const std::string& name, const std::string& text) {
  const char* pointer = text.c_str();
  const Handle type = text_type();
  write_attribute(object, name, type.get(), scalar_space(), static_cast<const void*>(&pointer));
}
void set_attribute(const Handle& object, const std::string& name, const std::vector<std::string>& texts) {
  std::vector<const char*> pointers;
  for (const std::string& text : texts) pointers.push_back(text.c_str());
  if (texts.empty()) pointers.push_back("");  // not written, but HDF5 insists on an address
  const Handle type = text_type();
  write_attribute(object, name, type.get(), line_space(texts.size()), pointers.data());
}
void set_attribute(const Handle& object, const std::string& name, const std::vector<int64_t>& values) {
  write_attribute(object, name, H5T_NATIVE_INT64, line_space(values.size()), values.data());
}
void remove_attribute(const Handle& object, const std::string& name) {
  const htri_t found = H5Aexists(object.get(), name.c_str());
  checked_status(found, where(object, name));
  if (found > 0) checked_status(H5Adelete(object.get(), name.c_str()), where(object, name));
}
void set_bool_attribute(const Handle& object, const std::string& name, bool value) {
  const Handle type = bool_type();
  const int8_t byte = value ? 1 : 0;
  write_attribute(object, name, type.get(), scalar_space(), &byte);
}

void write_scalar(const Handle& parent, const std::string& name, const std::string& text) {
  const char* pointer = text.c_str();
  const Handle type = text_type();
  set_encoding(write_scalar_value(parent, name, type.get(), static_cast<const void*>(&pointer)), "string",
               "0.2.0");
}
void write_scalar(const Handle& parent, const std::string& name, int64_t value) {
  set_encoding(write_scalar_value(parent, name, H5T_NATIVE_INT64, &value), "numeric-scalar", "0.2.0");
}
void write_scalar(const Handle& parent, const std::string& name, double value) {
  set_encoding(write_scalar_value(parent, name, H5T_NATIVE_DOUBLE, &value), "numeric-scalar", "0.2.0");
}

Appender::Appender(const Handle& parent, const std::string& name, ElementType type, int gzip_level)
    : where_(where(parent, name)), type_(type) {
  const bool is_text = type == ElementType::kText;
  const hsize_t none = 0, unlimited = H5S_UNLIMITED, chunk = is_text ? kTextChunk : kNumberChunk;
  const Handle space = checked(H5Screate_simple(1, &none, &unlimited), where_);
  const Handle properties = timeless(H5P_DATASET_CREATE);
  checked_status(H5Pset_chunk(properties.get(), 1, &chunk), where_);
  if (!is_text)
    checked_status(H5Pset_shuffle(properties.get()), where_);  // text is stored apart: nothing to shuffle
  checked_status(H5Pset_deflate(properties.get(), static_cast<unsigned>(gzip_level)), where_);
  const Handle stored = stored_type(type);
  dataset_ = checked(H5Dcreate2(parent.get(), name.c_str(), stored.get(), space.get(), H5P_DEFAULT,
                                properties.get(), H5P_DEFAULT),
                     where_);
  set_encoding(dataset_, is_text ? "string-array" : "array", "0.2.0");
}

void Appender::append_raw(std::size_t count, hid_t memory_type, const void* values) {
  if (count == 0) return;
  const hsize_t begin = size_, added = count, total = size_ + count;
  checked_status(H5Dset_extent(dataset_.get(), &total), where_);
  const Handle in_file = checked(H5Dget_space(dataset_.get()), where_);
  checked_status(H5Sselect_hyperslab(in_file.get(), H5S_SELECT_SET, &begin, nullptr, &added, nullptr),
                 where_);
  const Handle in_memory = line_space(added);
  checked_status(H5Dwrite(dataset_.get(), memory_type, in_memory.get(), in_file.get(), H5P_DEFAULT, values),
                 where_);
  size_ = total;
}

void Appender::append(std::span<const int8_t> values) {
  append_raw(values.size(), H5T_NATIVE_INT8, values.data());
}
void Appender::append(std::span<const int32_t> values) {
  append_raw(values.size(), H5T_NATIVE_INT32, values.data());
}
void Appender::append(std::span<const int64_t> values) {
  append_raw(values.size(), H5T_NATIVE_INT64, values.data());
}
void Appender::append(std::span<const float> values) {
  append_raw(values.size(), H5T_NATIVE_FLOAT, values.data());
}
void Appender::append(std::span<const double> values) {
  append_raw(values.size(), H5T_NATIVE_DOUBLE, values.data());
}
void Appender::append(std::span<const std::string> texts) {
  SCRNA_CHECK(type_ == ElementType::kText, "{} does not hold text", where_);
  std::vector<const char*> pointers;
  pointers.reserve(texts.size());
  for (const std::string& text : texts) pointers.push_back(text.c_str());
  const Handle type = text_type();
  append_raw(texts.size(), type.get(), pointers.data());
}

MatrixWriter::MatrixWriter(const Handle& parent, const std::string& name, int64_t num_rows, int64_t num_columns)
    : where_(where(parent, name)), num_columns_(num_columns) {
  const std::array shape = {static_cast<hsize_t>(num_rows), static_cast<hsize_t>(num_columns)};
  const Handle space = checked(H5Screate_simple(2, shape.data(), nullptr), where_);
  const Handle properties = timeless(H5P_DATASET_CREATE);
  const Handle stored = stored_type(ElementType::kFloat32);
  dataset_ = checked(H5Dcreate2(parent.get(), name.c_str(), stored.get(), space.get(), H5P_DEFAULT,
                                properties.get(), H5P_DEFAULT),
                     where_);
  set_encoding(dataset_, "array", "0.2.0");
}

void MatrixWriter::write(int64_t first, int64_t count, const float* values) {
  if (count == 0) return;
  const std::array start = {static_cast<hsize_t>(first), hsize_t{0}};
  const std::array size = {static_cast<hsize_t>(count), static_cast<hsize_t>(num_columns_)};
  const Handle in_file = checked(H5Dget_space(dataset_.get()), where_);
  checked_status(
      H5Sselect_hyperslab(in_file.get(), H5S_SELECT_SET, start.data(), nullptr, size.data(), nullptr), where_);
  const Handle in_memory = checked(H5Screate_simple(2, size.data(), nullptr), where_);
  checked_status(
      H5Dwrite(dataset_.get(), H5T_NATIVE_FLOAT, in_memory.get(), in_file.get(), H5P_DEFAULT, values), where_);
}

}  // namespace scrna::data::h5
