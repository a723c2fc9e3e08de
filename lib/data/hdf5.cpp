#include "lib/data/hdf5.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <memory>

#include "lib/core/error.h"

namespace scrna::data::h5 {
namespace {

// deflate cannot shrink by more than 1032; what declares far more than the file could hold is a lie or an
// attack.
constexpr uint64_t kMaxExpansion = 2000;
constexpr uint64_t kFreeBytes = uint64_t{64} << 20;

herr_t collect(unsigned, const H5E_error2_t* error, void* out) {
  auto* text = static_cast<std::string*>(out);
  if (error->desc != nullptr && *error->desc != '\0' && text->size() < 300) {
    if (!text->empty()) *text += "; ";
    *text += error->desc;
  }
  return 0;
}

// HDF5 prints its error stack to stderr unless told not to, for each thread.
void silence() {
  thread_local const bool done = [] { return H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0; }();
  static_cast<void>(done);
}

Handle checked(hid_t id, const std::string& what) {
  if (id < 0) throw DataError("{}: {}", what, hdf5_reason());
  return Handle(id);
}

std::string filter_problem(hid_t properties) {
  const int count = H5Pget_nfilters(properties);
  for (int i = 0; i < count; ++i) {
    unsigned flags = 0;
    std::size_t num_values = 0;
    std::array<char, 64> name{};
    const H5Z_filter_t filter = H5Pget_filter2(properties, static_cast<unsigned>(i), &flags, &num_values,
                                               nullptr, name.size(), name.data(), nullptr);
    if (H5Zfilter_avail(filter) > 0) continue;
    return fmt::format(
        "is compressed with filter {} ({}), which this machine's HDF5 lacks; install hdf5-filter-plugin "
        "(Debian) or rewrite the "
        "file with gzip: adata.write_h5ad(path, compression='gzip')",
        static_cast<int>(filter), name[0] != '\0' ? name.data() : "unnamed");
  }
  return {};
}

// One text of a fixed-length field: up to the first NUL, without trailing spaces of space-padded strings.
std::string fixed_text(const char* data, std::size_t size, bool space_padded) {
  std::size_t length = 0;
  while (length < size && data[length] != '\0') ++length;
  while (space_padded && length > 0 && data[length - 1] == ' ') --length;
  return {data, length};
}

std::vector<std::string> read_text_elements(hid_t type, std::size_t count, const auto& read_into,
                                            hid_t space) {
  std::vector<std::string> result;
  result.reserve(count);
  if (H5Tis_variable_str(type) > 0) {
    const Handle memory_type(H5Tcopy(H5T_C_S1));
    H5Tset_size(memory_type.get(), H5T_VARIABLE);
    H5Tset_cset(memory_type.get(), H5Tget_cset(type));
    std::vector<char*> pointers(count, nullptr);
    read_into(memory_type.get(), pointers.data());
    for (const char* text : pointers) result.emplace_back(text != nullptr ? text : "");
    H5Dvlen_reclaim(memory_type.get(), space, H5P_DEFAULT, pointers.data());
    return result;
  }
  const std::size_t size = H5Tget_size(type);
  const Handle memory_type(H5Tcopy(type));
  std::vector<char> bytes(size * count);
  read_into(memory_type.get(), bytes.data());
  const bool space_padded = H5Tget_strpad(type) == H5T_STR_SPACEPAD;
  for (std::size_t i = 0; i < count; ++i)
    result.push_back(fixed_text(bytes.data() + i * size, size, space_padded));
  return result;
}

}  // namespace

std::recursive_mutex& hdf5_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

std::string hdf5_reason() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, &collect, &text);
  H5Eclear2(H5E_DEFAULT);
  return text.empty() ? "HDF5 gave no reason" : text;
}

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    reset();
    id_ = std::exchange(other.id_, H5I_INVALID_HID);
  }
  return *this;
}

void Handle::reset() {
  if (id_ >= 0) {
    const std::scoped_lock lock(hdf5_mutex());
    H5Idec_ref(id_);
  }
  id_ = H5I_INVALID_HID;
}

Dataset::Dataset(Handle handle, std::string where, uint64_t file_bytes)
    : handle_(std::move(handle)), where_(std::move(where)) {
  const Handle properties = checked(H5Dget_create_plist(handle_.get()), where_);
  if (H5Pget_layout(properties.get()) == H5D_VIRTUAL || H5Pget_external_count(properties.get()) > 0) {
    throw DataError(
        "{}: its contents lie in other files (virtual or external storage), which is refused; copy it into "
        "one file",
        where_);
  }
  if (const std::string problem = filter_problem(properties.get()); !problem.empty())
    throw DataError("{}: {}", where_, problem);
  const Handle space = checked(H5Dget_space(handle_.get()), where_);
  const Handle type = checked(H5Dget_type(handle_.get()), where_);
  const int rank = H5Sget_simple_extent_ndims(space.get());
  std::vector<hsize_t> extent(static_cast<std::size_t>(std::max(rank, 0)));
  H5Sget_simple_extent_dims(space.get(), extent.data(), nullptr);
  uint64_t bytes = H5Tget_size(type.get());
  for (const hsize_t size : extent) {
    shape_.push_back(size);
    if (__builtin_mul_overflow(bytes, size, &bytes))
      throw DataError("{}: declares more bytes than fit 64 bits", where_);
  }
  if (bytes / kMaxExpansion > file_bytes + kFreeBytes / kMaxExpansion) {
    throw DataError(
        "{}: declares {} bytes, but the whole file has only {}; the file is damaged or not honest", where_,
        bytes, file_bytes);
  }
  switch (H5Tget_class(type.get())) {
    case H5T_INTEGER:
      kind_ = NumberKind::kInteger;
      break;
    case H5T_FLOAT:
      kind_ = NumberKind::kFloat;
      break;
    case H5T_ENUM:
      kind_ = NumberKind::kBoolean;
      break;
    case H5T_STRING:
      is_text_ = true;
      break;
    default:
      break;
  }
}

uint64_t Dataset::num_elements() const {
  uint64_t count = 1;
  for (const uint64_t size : shape_) count *= size;
  return count;
}

std::string Dataset::type_name() const {
  const std::scoped_lock lock(hdf5_mutex());
  if (is_text_) return "text";
  const Handle type(H5Dget_type(handle_.get()));
  const std::size_t bits = 8 * H5Tget_size(type.get());
  switch (kind_) {
    case NumberKind::kInteger:
      return fmt::format("{}int{}", H5Tget_sign(type.get()) == H5T_SGN_NONE ? "u" : "", bits);
    case NumberKind::kFloat:
      return fmt::format("float{}", bits);
    case NumberKind::kBoolean:
      return "bool";
    case NumberKind::kNone:
      break;
  }
  return "a compound or other structured type";
}

void Dataset::read_block(const std::vector<hsize_t>& start, const std::vector<hsize_t>& count, hid_t type,
                         void* out) const {
  const std::scoped_lock lock(hdf5_mutex());
  silence();
  SCRNA_CHECK(start.size() == shape_.size(), "{}: {} dimensions", where_, shape_.size());
  for (std::size_t i = 0; i < start.size(); ++i)
    SCRNA_CHECK(start[i] + count[i] <= shape_[i], "{}: outside the data set", where_);
  if (kind_ == NumberKind::kNone) throw DataError("{}: expected numbers, got {}", where_, type_name());
  for (const hsize_t size : count) {
    if (size == 0) return;
  }
  const Handle file_space = checked(H5Dget_space(handle_.get()), where_);
  const Handle memory_space =
      checked(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr), where_);
  H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
  // HDF5 converts an enum (AnnData's booleans) only to an enum; its integer type reads the same bytes.
  if (kind_ == NumberKind::kBoolean && type != H5T_NATIVE_INT8) {
    std::size_t total = 1;
    for (const hsize_t size : count) total *= size;
    std::vector<int8_t> flags(total);
    read_block(start, count, H5T_NATIVE_INT8, flags.data());
    for (std::size_t i = 0; i < total; ++i) {
      if (type == H5T_NATIVE_FLOAT) static_cast<float*>(out)[i] = flags[i];
      if (type == H5T_NATIVE_DOUBLE) static_cast<double*>(out)[i] = flags[i];
      if (type == H5T_NATIVE_INT32) static_cast<int32_t*>(out)[i] = flags[i];
      if (type == H5T_NATIVE_INT64) static_cast<int64_t*>(out)[i] = flags[i];
    }
    return;
  }
  Handle enum_type;
  if (kind_ == NumberKind::kBoolean) {
    const Handle stored = checked(H5Dget_type(handle_.get()), where_);
    if (H5Tget_size(stored.get()) != 1)
      throw DataError("{}: an enumeration of more than one byte is not supported", where_);
    enum_type = checked(H5Tcopy(stored.get()), where_);
    type = enum_type.get();
  }
  if (H5Dread(handle_.get(), type, memory_space.get(), file_space.get(), H5P_DEFAULT, out) < 0) {
    throw DataError("{}: cannot be read (damaged or truncated file?): {}", where_, hdf5_reason());
  }
}

void Dataset::read(uint64_t first, uint64_t count, int32_t* out) const {
  read_block({first}, {count}, H5T_NATIVE_INT32, out);
}
void Dataset::read(uint64_t first, uint64_t count, int64_t* out) const {
  read_block({first}, {count}, H5T_NATIVE_INT64, out);
}
void Dataset::read(uint64_t first, uint64_t count, float* out) const {
  read_block({first}, {count}, H5T_NATIVE_FLOAT, out);
}
void Dataset::read(uint64_t first, uint64_t count, double* out) const {
  read_block({first}, {count}, H5T_NATIVE_DOUBLE, out);
}
void Dataset::read_rows(uint64_t first, uint64_t count, float* out) const {
  SCRNA_CHECK(shape_.size() == 2, "{}", where_);
  read_block({first, 0}, {count, shape_[1]}, H5T_NATIVE_FLOAT, out);
}

std::vector<std::string> Dataset::read_text() const {
  const std::scoped_lock lock(hdf5_mutex());
  silence();
  if (!is_text_ || shape_.size() != 1)
    throw DataError("{}: expected a list of texts, got {}", where_, type_name());
  if (shape_[0] == 0) return {};
  const Handle type = checked(H5Dget_type(handle_.get()), where_);
  const Handle space = checked(H5Dget_space(handle_.get()), where_);
  return read_text_elements(
      type.get(), shape_[0],
      [&](hid_t memory_type, void* out) {
        if (H5Dread(handle_.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0) {
          throw DataError("{}: cannot be read (damaged or truncated file?): {}", where_, hdf5_reason());
        }
      },
      space.get());
}

std::vector<int64_t> Dataset::read_integers() const {
  if (shape_.size() != 1) throw DataError("{}: expected a list, got {} dimensions", where_, shape_.size());
  std::vector<int64_t> values(shape_[0]);
  read(0, shape_[0], values.data());
  return values;
}

std::vector<double> Dataset::read_doubles() const {
  if (shape_.size() != 1) throw DataError("{}: expected a list, got {} dimensions", where_, shape_.size());
  std::vector<double> values(shape_[0]);
  read(0, shape_[0], values.data());
  return values;
}

ObjectKind Group::kind_of(const std::string& path) const {
  const std::scoped_lock lock(hdf5_mutex());
  silence();
  // Every part of the path must be looked at: H5Lexists fails when a parent is missing.
  std::size_t end = 0;
  while (end != std::string::npos) {
    end = path.find('/', end + 1);
    const std::string part = path.substr(0, end);
    if (H5Lexists(handle_.get(), part.c_str(), H5P_DEFAULT) <= 0) {
      H5Eclear2(H5E_DEFAULT);
      return ObjectKind::kMissing;
    }
    H5L_info_t info{};
    if (H5Lget_info(handle_.get(), part.c_str(), &info, H5P_DEFAULT) >= 0 && info.type == H5L_TYPE_EXTERNAL) {
      throw DataError("{}/{}: is a link to another file, which is refused; copy the data into this file",
                      where_, part);
    }
  }
  H5O_info_t info{};
  if (H5Oget_info_by_name(handle_.get(), path.c_str(), &info, H5P_DEFAULT) < 0) {
    throw DataError("{}/{}: a link that leads nowhere: {}", where_, path, hdf5_reason());
  }
  return info.type == H5O_TYPE_GROUP     ? ObjectKind::kGroup
         : info.type == H5O_TYPE_DATASET ? ObjectKind::kDataset
                                         : ObjectKind::kMissing;
}

Group Group::group(const std::string& path) const {
  const std::scoped_lock lock(hdf5_mutex());
  if (kind_of(path) != ObjectKind::kGroup) throw DataError("{}/{}: expected a group", where_, path);
  return {checked(H5Gopen2(handle_.get(), path.c_str(), H5P_DEFAULT), where_ + "/" + path),
          where_ + "/" + path, file_bytes_};
}

Dataset Group::dataset(const std::string& path) const {
  const std::scoped_lock lock(hdf5_mutex());
  if (kind_of(path) != ObjectKind::kDataset)
    throw DataError("{}/{}: expected a data set, found {}", where_, path, has(path) ? "a group" : "nothing");
  return {checked(H5Dopen2(handle_.get(), path.c_str(), H5P_DEFAULT), where_ + "/" + path),
          where_ + "/" + path, file_bytes_};
}

std::vector<std::string> Group::members() const {
  const std::scoped_lock lock(hdf5_mutex());
  std::vector<std::string> names;
  const auto visit = [](hid_t, const char* name, const H5L_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  if (H5Literate(handle_.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, visit, &names) < 0) {
    throw DataError("{}: its members cannot be listed: {}", where_, hdf5_reason());
  }
  return names;
}

std::optional<std::vector<std::string>> Group::text_list_attribute(const std::string& name) const {
  const std::scoped_lock lock(hdf5_mutex());
  if (H5Aexists(handle_.get(), name.c_str()) <= 0) return std::nullopt;
  const Handle attribute = checked(H5Aopen(handle_.get(), name.c_str(), H5P_DEFAULT), where_);
  const Handle type = checked(H5Aget_type(attribute.get()), where_);
  const Handle space = checked(H5Aget_space(attribute.get()), where_);
  if (H5Tget_class(type.get()) != H5T_STRING) {
    return H5Sget_simple_extent_npoints(space.get()) == 0 ? std::optional(std::vector<std::string>{})
                                                          : std::nullopt;
  }
  const auto count =
      static_cast<std::size_t>(std::max<hssize_t>(0, H5Sget_simple_extent_npoints(space.get())));
  if (count == 0) return std::vector<std::string>{};
  return read_text_elements(
      type.get(), count,
      [&](hid_t memory_type, void* out) {
        if (H5Aread(attribute.get(), memory_type, out) < 0)
          throw DataError("{}: attribute {} cannot be read: {}", where_, name, hdf5_reason());
      },
      space.get());
}

std::optional<std::string> Group::text_attribute(const std::string& name, const std::string& path) const {
  const std::scoped_lock lock(hdf5_mutex());
  const Handle object = checked(H5Oopen(handle_.get(), path.c_str(), H5P_DEFAULT), where_ + "/" + path);
  if (H5Aexists(object.get(), name.c_str()) <= 0) return std::nullopt;
  const Handle attribute = checked(H5Aopen(object.get(), name.c_str(), H5P_DEFAULT), where_);
  const Handle type = checked(H5Aget_type(attribute.get()), where_);
  const Handle space = checked(H5Aget_space(attribute.get()), where_);
  if (H5Tget_class(type.get()) != H5T_STRING || H5Sget_simple_extent_npoints(space.get()) != 1)
    return std::nullopt;
  const auto texts = read_text_elements(
      type.get(), 1,
      [&](hid_t memory_type, void* out) {
        if (H5Aread(attribute.get(), memory_type, out) < 0)
          throw DataError("{}: attribute {} cannot be read: {}", where_, name, hdf5_reason());
      },
      space.get());
  return texts[0];
}

std::optional<std::vector<int64_t>> Group::integer_list_attribute(const std::string& name) const {
  const std::scoped_lock lock(hdf5_mutex());
  if (H5Aexists(handle_.get(), name.c_str()) <= 0) return std::nullopt;
  const Handle attribute = checked(H5Aopen(handle_.get(), name.c_str(), H5P_DEFAULT), where_);
  const Handle type = checked(H5Aget_type(attribute.get()), where_);
  const Handle space = checked(H5Aget_space(attribute.get()), where_);
  const hssize_t count = H5Sget_simple_extent_npoints(space.get());
  if (H5Tget_class(type.get()) != H5T_INTEGER || count < 0 || count > 64) return std::nullopt;
  std::vector<int64_t> values(static_cast<std::size_t>(count));
  if (count > 0 && H5Aread(attribute.get(), H5T_NATIVE_INT64, values.data()) < 0) return std::nullopt;
  return values;
}

Group open_file(const std::filesystem::path& path) {
  const std::scoped_lock lock(hdf5_mutex());
  silence();
  std::error_code problem;
  if (!std::filesystem::exists(path, problem)) throw DataError("{}: no such file", path.string());
  if (std::filesystem::is_directory(path))
    throw DataError("{}: is a folder; expected an .h5ad file (a .zarr store must be written as .h5ad first)",
                    path.string());
  std::ifstream stream(path, std::ios::binary);
  std::array<char, 4> magic{};
  if (!stream || !stream.read(magic.data(), magic.size()))
    throw DataError("{}: cannot be read, or is empty", path.string());
  stream.close();
  if (H5Fis_hdf5(path.c_str()) <= 0) {
    H5Eclear2(H5E_DEFAULT);
    const std::string_view start(magic.data(), 4);
    const char* guess = start.starts_with("PK")
                            ? " (a zip archive, perhaps a zipped zarr store: write it as .h5ad first)"
                        : start.starts_with("\x1f\x8b") ? " (gzip: unpack it first)"
                                                        : "";
    throw DataError("{}: not an HDF5 file{}; expected AnnData .h5ad", path.string(), guess);
  }
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT));
  if (!file)
    throw DataError("{}: cannot be opened: {} (an incomplete download?)", path.string(), hdf5_reason());
  return {std::move(file), path.string() + ":", std::filesystem::file_size(path)};
}

}  // namespace scrna::data::h5
