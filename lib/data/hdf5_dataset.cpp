// Data sets: what they declare is compared with the size of the file when they are opened, all reads go
// through one function, and the chunk cache holds a whole band of chunks, so that neighbouring blocks of rows
// decompress each chunk once (HDF5's default of 1 MB decompresses a larger chunk again for every block read
// from it).
#include <algorithm>

#include "lib/core/error.h"
#include "lib/data/hdf5.h"
#include "lib/data/hdf5_detail.h"
#include "lib/data/hdf5_filters.h"

namespace scrna::data::h5 {
namespace {

using detail::checked;

constexpr uint64_t kDefaultCacheBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxCacheBytes = uint64_t{256} << 20;  // of a band; a single larger chunk is kept, too
constexpr uint64_t kMaxChunkBytes = uint64_t{1} << 30;

std::vector<uint64_t> shape_of(hid_t dataset, const std::string& where) {
  const Handle space = checked(H5Dget_space(dataset), where);
  if (H5Sget_simple_extent_type(space.get()) == H5S_NULL)
    return {0};  // holds nothing, and is read as an empty list
  std::vector<hsize_t> extent(static_cast<std::size_t>(std::max(H5Sget_simple_extent_ndims(space.get()), 0)));
  H5Sget_simple_extent_dims(space.get(), extent.data(), nullptr);
  return {extent.begin(), extent.end()};
}

// Before anything else is asked of a data set: even the shape of a virtual one makes HDF5 open other files.
void refuse_other_files(hid_t properties, const std::string& where) {
  if (H5Pget_layout(properties) == H5D_VIRTUAL || H5Pget_external_count(properties) > 0) {
    throw DataError(
        "{}: its contents lie in other files (virtual or external storage), which is refused; copy the data "
        "into one file",
        where);
  }
}

// Throws when the contents need a missing filter, or are declared larger than the file can hold.
void check_storage(hid_t dataset, hid_t properties, const std::vector<uint64_t>& shape,
                   uint64_t element_bytes, uint64_t file_bytes, const std::string& where) {
  if (const std::string problem = missing_filter(properties); !problem.empty())
    throw DataError("{}: {}", where, problem);
  uint64_t bytes = element_bytes;
  for (const uint64_t size : shape) {
    if (__builtin_mul_overflow(bytes, size, &bytes))
      throw DataError("{}: declares more bytes than fit 64 bits; the file is damaged", where);
  }
  if (detail::exceeds_file(bytes, file_bytes)) {
    throw DataError("{}: declares {} bytes, but the whole file has {}; the file is damaged", where, bytes,
                    file_bytes);
  }
  if (H5Pget_layout(properties) == H5D_COMPACT &&
      H5Dget_storage_size(dataset) < bytes) {  // HDF5 would read beyond it
    throw DataError("{}: declares {} bytes, but {} are stored; the file is damaged", where, bytes,
                    H5Dget_storage_size(dataset));
  }
  if (H5Pget_layout(properties) == H5D_CONTIGUOUS && H5Dget_storage_size(dataset) > file_bytes) {
    throw DataError(
        "{}: declares {} bytes of contiguous storage, but the whole file has {}; is it truncated?", where,
        bytes, file_bytes);
  }
}

// Bytes of one band of chunks, all columns; 0 when not chunked. Throws for chunks that memory cannot take.
uint64_t band_bytes(hid_t properties, const std::vector<uint64_t>& shape, uint64_t element_bytes,
                    uint64_t file_bytes, const std::string& where) {
  if (H5Pget_layout(properties) != H5D_CHUNKED || shape.empty()) return 0;
  std::vector<hsize_t> chunk(shape.size(), 1);
  H5Pget_chunk(properties, static_cast<int>(chunk.size()), chunk.data());
  uint64_t bytes = element_bytes;
  for (const hsize_t size : chunk) {
    if (size == 0 || __builtin_mul_overflow(bytes, size, &bytes)) bytes = kMaxChunkBytes + 1;
  }
  if (bytes > kMaxChunkBytes || detail::exceeds_file(bytes, file_bytes)) {
    throw DataError("{}: is stored in chunks of {} MB, too large to take into memory; rewrite the file",
                    where, bytes >> 20);
  }
  uint64_t band = bytes;
  for (std::size_t i = 1; i < shape.size(); ++i) {
    if (__builtin_mul_overflow(band, (shape[i] + chunk[i] - 1) / chunk[i], &band)) return bytes;
  }
  return band <= kMaxCacheBytes ? band : bytes;
}

}  // namespace

Dataset Dataset::open(hid_t parent, const std::string& path, const std::string& where, uint64_t file_bytes) {
  const auto open_with = [&](hid_t access) { return checked(H5Dopen2(parent, path.c_str(), access), where); };
  const Handle access(H5Pcreate(H5P_DATASET_ACCESS));
  detail::stay_inside_file(access.get());
  Handle dataset = open_with(access.get());
  Handle type = checked(H5Dget_type(dataset.get()), where);
  const Handle properties = checked(H5Dget_create_plist(dataset.get()), where);
  refuse_other_files(properties.get(), where);
  const std::vector<uint64_t> shape = shape_of(dataset.get(), where);
  check_storage(dataset.get(), properties.get(), shape, H5Tget_size(type.get()), file_bytes, where);
  const uint64_t band = band_bytes(properties.get(), shape, H5Tget_size(type.get()), file_bytes, where);
  if (band > kDefaultCacheBytes) {  // the cache of an open data set cannot change
    dataset = Handle();
    constexpr std::size_t kSlots = 12421;  // a prime, above the number of chunks of any band
    H5Pset_chunk_cache(access.get(), kSlots, band, 1.0);
    dataset = open_with(access.get());
  }
  return {std::move(dataset), std::move(type), where, shape, file_bytes};
}

Dataset::Dataset(Handle handle, Handle type, std::string where, std::vector<uint64_t> shape,
                 uint64_t file_bytes, std::string field)
    : handle_(std::move(handle)),
      type_(std::move(type)),
      where_(std::move(where)),
      field_(std::move(field)),
      shape_(std::move(shape)),
      file_bytes_(file_bytes) {
  constexpr std::size_t kLargestNumber =
      16;  // bytes; damage can declare more, and HDF5 would read beyond its chunks
  const bool is_possible = H5Tget_size(type_.get()) <= kLargestNumber;
  switch (H5Tget_class(type_.get())) {
    case H5T_INTEGER:
      kind_ = is_possible ? NumberKind::kInteger : NumberKind::kNone;
      break;
    case H5T_FLOAT:
      kind_ = is_possible ? NumberKind::kFloat : NumberKind::kNone;
      break;
    case H5T_ENUM:  // two names are a truth value, as h5py writes numpy.bool_; of others h5py gives the
                    // numbers
      kind_ = H5Tget_size(type_.get()) == 1 && H5Tget_nmembers(type_.get()) == 2 ? NumberKind::kBoolean
                                                                                 : NumberKind::kInteger;
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
  const std::size_t bits = 8 * H5Tget_size(type_.get());
  switch (kind_) {
    case NumberKind::kInteger:
      return fmt::format("{}int{}", H5Tget_sign(type_.get()) == H5T_SGN_NONE ? "u" : "", bits);
    case NumberKind::kFloat:
      return fmt::format("float{}", bits);
    case NumberKind::kBoolean:
      return "bool";
    case NumberKind::kNone:
      break;
  }
  return H5Tget_class(type_.get()) == H5T_ENUM       ? "an enumeration"
         : H5Tget_class(type_.get()) == H5T_COMPOUND ? "a compound type"
                                                     : "a type that is not supported";
}

std::vector<std::string> Dataset::field_names() const {
  const std::scoped_lock lock(hdf5_mutex());
  std::vector<std::string> names;
  if (H5Tget_class(type_.get()) != H5T_COMPOUND) return names;
  for (int i = 0; i < H5Tget_nmembers(type_.get()); ++i) {
    char* name = H5Tget_member_name(type_.get(), static_cast<unsigned>(i));
    names.emplace_back(name != nullptr ? name : "");
    H5free_memory(name);
  }
  return names;
}

Dataset Dataset::field(const std::string& name) const {
  const std::scoped_lock lock(hdf5_mutex());
  const int index = H5Tget_member_index(type_.get(), name.c_str());
  if (index < 0) throw DataError("{}: has no field '{}'", where_, name);
  Handle type = checked(H5Tget_member_type(type_.get(), static_cast<unsigned>(index)), where_);
  H5Iinc_ref(handle_.get());
  return {Handle(handle_.get()), std::move(type), where_ + "[" + name + "]", shape_, file_bytes_, name};
}

Handle Dataset::in_memory(hid_t type) const {
  if (field_.empty()) return checked(H5Tcopy(type), where_);
  Handle compound = checked(H5Tcreate(H5T_COMPOUND, H5Tget_size(type)), where_);
  H5Tinsert(compound.get(), field_.c_str(), 0, type);
  return compound;
}

void Dataset::read_block(const std::vector<hsize_t>& start, const std::vector<hsize_t>& count, hid_t type,
                         void* out) const {
  const std::scoped_lock lock(hdf5_mutex());
  detail::silence();
  SCRNA_CHECK(start.size() == shape_.size(), "{}: {} dimensions", where_, shape_.size());
  for (std::size_t i = 0; i < start.size(); ++i)
    SCRNA_CHECK(start[i] + count[i] <= shape_[i], "{}: outside the data set", where_);
  if (kind_ == NumberKind::kNone) throw DataError("{}: expected numbers, got {}", where_, type_name());
  std::size_t total = 1;
  for (const hsize_t size : count) total *= size;
  if (total == 0) return;
  const Handle file_space = checked(H5Dget_space(handle_.get()), where_);
  const Handle memory_space =
      count.empty()
          ? checked(H5Screate(H5S_SCALAR), where_)
          : checked(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr), where_);
  if (!count.empty())
    H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
  const auto read_as = [&](hid_t element, void* into) {
    if (H5Dread(handle_.get(), in_memory(element).get(), memory_space.get(), file_space.get(), H5P_DEFAULT,
                into) < 0) {
      throw DataError("{}: cannot be read (damaged or truncated file?): {}", where_, hdf5_reason());
    }
  };
  if (kind_ != NumberKind::kBoolean) {
    read_as(type, out);
    return;
  }
  // HDF5 converts an enumeration only to itself, one byte here.
  std::vector<int8_t> flags(total);
  read_as(type_.get(), flags.data());
  const auto convert = [&](auto* numbers) { std::copy(flags.begin(), flags.end(), numbers); };
  if (type == H5T_NATIVE_FLOAT) convert(static_cast<float*>(out));
  if (type == H5T_NATIVE_DOUBLE) convert(static_cast<double*>(out));
  if (type == H5T_NATIVE_INT32) convert(static_cast<int32_t*>(out));
  if (type == H5T_NATIVE_INT64) convert(static_cast<int64_t*>(out));
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
  detail::silence();
  if (!is_text_ || shape_.size() > 1)
    throw DataError("{}: expected a list of texts, got {} of {} dimensions", where_, type_name(),
                    shape_.size());
  if (num_elements() == 0) return {};
  const auto read_into = [&](hid_t memory_type, hid_t transfer, void* out) {
    if (H5Dread(handle_.get(), in_memory(memory_type).get(), H5S_ALL, H5S_ALL, transfer, out) < 0)
      throw DataError("{}: cannot be read (damaged or truncated file?): {}", where_, hdf5_reason());
  };
  return detail::read_texts(type_.get(), num_elements(), file_bytes_, read_into);
}

template <class T>
std::vector<T> Dataset::read_all(hid_t type) const {
  if (shape_.size() > 1) throw DataError("{}: expected a list, got {} dimensions", where_, shape_.size());
  std::vector<T> values(num_elements());
  read_block(std::vector<hsize_t>(shape_.size(), 0), {shape_.begin(), shape_.end()}, type, values.data());
  return values;
}

std::vector<int64_t> Dataset::read_integers() const { return read_all<int64_t>(H5T_NATIVE_INT64); }
std::vector<double> Dataset::read_doubles() const { return read_all<double>(H5T_NATIVE_DOUBLE); }

}  // namespace scrna::data::h5
