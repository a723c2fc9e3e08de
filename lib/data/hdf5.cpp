#include "lib/data/hdf5.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <fstream>
#include <memory>
#include <string_view>

#include "lib/core/error.h"
#include "lib/data/hdf5_detail.h"
#include "lib/data/hdf5_lzf.h"
#include "lib/data/hdf5_version.h"

namespace scrna::data::h5 {
namespace {

using detail::checked;

constexpr std::size_t kMaxReasonChars = 300;

herr_t collect(unsigned, const H5E_error2_t* error, void* out) {
  auto* text = static_cast<std::string*>(out);
  if (error->desc != nullptr && *error->desc != '\0' && text->size() < kMaxReasonChars) {
    if (!text->empty()) *text += "; ";
    *text += error->desc;
  }
  return 0;
}

herr_t refuse_traversal(const char*, const char*, const char*, const char*, unsigned*, hid_t, void*) {
  return -1;
}

// Link access properties for everything that is opened by a path.
hid_t link_access() {
  static const hid_t properties = [] {  // lives as long as the program
    const hid_t made = H5Pcreate(H5P_LINK_ACCESS);
    detail::stay_inside_file(made);
    return made;
  }();
  return properties;
}

// True when HDF5's reason is a version of its own structures that it does not know, as of files written for
// the newest library only (libver="latest").
bool speaks_of_versions(const std::string& reason) {
  return reason.find("bad version number") != std::string::npos ||
         reason.find("bad superblock version") != std::string::npos;
}
std::string newer_format(const std::string& reason) {
  return fmt::format(
      "is damaged, or written in a newer format than HDF5 {} of this program reads; write it again, in "
      "Python: "
      "anndata.read_h5ad(path).write_h5ad(new_path) ({})",
      hdf5_version(), reason);
}

// What a file that is not HDF5 seems to be, from its name and its first bytes.
std::string guess_format(const std::filesystem::path& path, std::string_view start) {
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  if (start.starts_with("\x89HDF"))
    return " but begins like one: a damaged copy (transferred as text?), download or copy it again";
  if (ending == ".rds" || ending == ".rda" || ending == ".rdata" || start.starts_with("RDX") ||
      start.starts_with("X\n"))
    return " (R data: write it as .h5ad in R, with anndataR::write_h5ad or zellkonverter::writeH5AD)";
  if (ending == ".npz") return " (arrays of NumPy or SciPy: put them into anndata.AnnData and write_h5ad)";
  if (start.starts_with("PK"))
    return " (a zip archive, perhaps a zipped zarr store: write it as .h5ad first)";
  if (start.starts_with("\x1f\x8b")) return " (a gzip archive: unpack it first)";
  if (start.starts_with("BZh") ||
      start.starts_with("\xfd"
                        "7zXZ") ||
      start.starts_with("\x28\xb5\x2f\xfd") || start.starts_with("7z\xbc\xaf"))
    return " (a compressed archive: unpack it first)";
  if (start.starts_with("PAR1") || start.starts_with("ARROW1"))
    return " (a Parquet or Arrow table: put it into anndata.AnnData and write_h5ad)";
  if (start.starts_with("SQLite format 3")) return " (an SQLite data base)";
  if (start.starts_with("CDF\x01") || start.starts_with("CDF\x02"))
    return " (an old NetCDF file, perhaps an early loom)";
  if (start.starts_with("\x80") && (ending == ".pkl" || ending == ".pickle"))
    return " (a Python pickle: load it in Python and write_h5ad)";
  if (start.starts_with("%%Ma")) return " (a MatrixMarket file: read it with scanpy, write it as .h5ad)";
  if (start.starts_with("vers") || start.starts_with("<htm") || start.starts_with("<!DO") ||
      start.starts_with("<?xm"))
    return " (a text: a Git LFS pointer or a web page? download the file again)";
  const bool is_text = std::all_of(start.begin(), start.end(), [](unsigned char c) {
    return c >= 0x20 ? c != 0x7f : c == '\t' || c == '\n' || c == '\r';
  });
  if (is_text) return " (a text, perhaps a table: read it with scanpy or pandas, write it as .h5ad)";
  return "";
}

}  // namespace

namespace detail {

void silence() {
  thread_local const bool done = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
  static_cast<void>(done);
}

Handle checked(hid_t id, const std::string& what) {
  if (id < 0) throw DataError("{}: {}", what, hdf5_reason());
  return Handle(id);
}

void stay_inside_file(hid_t access_properties) {
  H5Pset_elink_cb(access_properties, &refuse_traversal, nullptr);
}

}  // namespace detail

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

ObjectKind Group::kind_of(const std::string& path) const {
  const std::scoped_lock lock(hdf5_mutex());
  detail::silence();
  // Every part of the path must be looked at: H5Lexists fails when a parent is missing.
  std::size_t end = 0;
  while (end != std::string::npos) {
    end = path.find('/', end + 1);
    const std::string part = path.substr(0, end);
    if (H5Lexists(handle_.get(), part.c_str(), link_access()) <= 0) {
      H5Eclear2(H5E_DEFAULT);
      return ObjectKind::kMissing;
    }
    H5L_info_t info{};
    if (H5Lget_info(handle_.get(), part.c_str(), &info, link_access()) >= 0 &&
        info.type == H5L_TYPE_EXTERNAL) {
      throw DataError("{}/{}: is a link to another file, which is refused; copy the data into this file",
                      where_, part);
    }
  }
  H5O_info_t info{};
  if (H5Oget_info_by_name(handle_.get(), path.c_str(), &info, link_access()) < 0) {
    const std::string reason = hdf5_reason();
    if (speaks_of_versions(reason)) throw DataError("{}/{}: {}", where_, path, newer_format(reason));
    throw DataError("{}/{}: is a link that leads nowhere, in a circle or to another file ({})", where_, path,
                    reason);
  }
  return info.type == H5O_TYPE_GROUP     ? ObjectKind::kGroup
         : info.type == H5O_TYPE_DATASET ? ObjectKind::kDataset
                                         : ObjectKind::kMissing;
}

Group Group::group(const std::string& path) const {
  const std::scoped_lock lock(hdf5_mutex());
  if (kind_of(path) != ObjectKind::kGroup) {
    throw DataError("{}/{}: expected a group, found {}", where_, path, has(path) ? "a data set" : "nothing");
  }
  const Handle access(H5Pcreate(H5P_GROUP_ACCESS));
  detail::stay_inside_file(access.get());
  return {checked(H5Gopen2(handle_.get(), path.c_str(), access.get()), where_ + "/" + path),
          where_ + "/" + path, file_bytes_};
}

Dataset Group::dataset(const std::string& path) const {
  const std::scoped_lock lock(hdf5_mutex());
  if (kind_of(path) != ObjectKind::kDataset)
    throw DataError("{}/{}: expected a data set, found {}", where_, path, has(path) ? "a group" : "nothing");
  return Dataset::open(handle_.get(), path, where_ + "/" + path, file_bytes_);
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

std::optional<std::vector<std::string>> Group::text_list_attribute(const std::string& name,
                                                                   const std::string& path) const {
  const std::scoped_lock lock(hdf5_mutex());
  const Handle object = checked(H5Oopen(handle_.get(), path.c_str(), link_access()),
                                path == "." ? where_ : where_ + "/" + path);
  if (H5Aexists(object.get(), name.c_str()) <= 0) return std::nullopt;
  const Handle attribute = checked(H5Aopen(object.get(), name.c_str(), H5P_DEFAULT), where_);
  const Handle type = checked(H5Aget_type(attribute.get()), where_);
  const Handle space = checked(H5Aget_space(attribute.get()), where_);
  const hssize_t count = H5Sget_simple_extent_npoints(space.get());
  if (count == 0) return std::vector<std::string>{};
  if (count < 0 || H5Tget_class(type.get()) != H5T_STRING) return std::nullopt;
  if (H5Aget_storage_size(attribute.get()) > file_bytes_)
    throw DataError("{}: attribute {} declares more bytes than the file has", where_, name);
  return detail::read_attribute_texts(
      type.get(), static_cast<std::size_t>(count), space.get(), [&](hid_t memory_type, hid_t, void* out) {
        if (H5Aread(attribute.get(), memory_type, out) < 0)
          throw DataError("{}: attribute {} cannot be read: {}", where_, name, hdf5_reason());
      });
}

std::optional<std::string> Group::text_attribute(const std::string& name, const std::string& path) const {
  const auto texts = text_list_attribute(name, path);
  if (!texts || texts->size() != 1) return std::nullopt;
  return texts->front();
}

std::optional<std::vector<int64_t>> Group::integer_list_attribute(const std::string& name) const {
  const std::scoped_lock lock(hdf5_mutex());
  if (H5Aexists(handle_.get(), name.c_str()) <= 0) return std::nullopt;
  const Handle attribute = checked(H5Aopen(handle_.get(), name.c_str(), H5P_DEFAULT), where_);
  const Handle type = checked(H5Aget_type(attribute.get()), where_);
  const Handle space = checked(H5Aget_space(attribute.get()), where_);
  const hssize_t count = H5Sget_simple_extent_npoints(space.get());
  constexpr hssize_t kMaxNumbers = 64;
  const H5T_class_t type_class = H5Tget_class(type.get());
  if ((type_class != H5T_INTEGER && type_class != H5T_FLOAT) || count < 0 || count > kMaxNumbers)
    return std::nullopt;
  const auto read = [&](hid_t memory_type, void* out) {
    if (count > 0 && H5Aread(attribute.get(), memory_type, out) < 0)
      throw DataError("{}: attribute {} cannot be read: {}", where_, name, hdf5_reason());
  };
  std::vector<int64_t> values(static_cast<std::size_t>(count));
  if (type_class == H5T_INTEGER) {
    read(H5T_NATIVE_INT64, values.data());
    return values;
  }
  std::vector<double> numbers(values.size());
  read(H5T_NATIVE_DOUBLE, numbers.data());
  constexpr double kLargestExact = 9007199254740992;  // 2^53
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (!(std::abs(numbers[i]) <= kLargestExact) || std::floor(numbers[i]) != numbers[i]) return std::nullopt;
    values[i] = static_cast<int64_t>(numbers[i]);
  }
  return values;
}

Group open_file(const std::filesystem::path& path) {
  const std::scoped_lock lock(hdf5_mutex());
  detail::silence();
  register_lzf();
  std::error_code problem;
  if (!std::filesystem::exists(path, problem)) throw DataError("{}: no such file", path.string());
  if (std::filesystem::is_directory(path, problem))
    throw DataError("{}: is a folder; expected an .h5ad file (a .zarr store must be written as .h5ad first)",
                    path.string());
  if (!std::filesystem::is_regular_file(path, problem))  // reading a pipe would wait for ever
    throw DataError("{}: is a pipe or a device; expected an .h5ad file", path.string());
  std::ifstream stream(path, std::ios::binary);
  std::array<char, 64> start{};
  if (!stream) throw DataError("{}: cannot be opened for reading (permissions?)", path.string());
  stream.read(start.data(), start.size());
  const auto num_read = static_cast<std::size_t>(stream.gcount());
  constexpr std::size_t kShortest = 8;  // HDF5's signature
  if (num_read < kShortest)
    throw DataError("{}: not an HDF5 file but empty, or nearly; expected AnnData .h5ad", path.string());
  stream.close();
  if (H5Fis_hdf5(path.c_str()) <= 0) {
    H5Eclear2(H5E_DEFAULT);
    throw DataError("{}: not an HDF5 file{}; expected AnnData .h5ad", path.string(),
                    guess_format(path, {start.data(), num_read}));
  }
  // Reading takes no lock: network file systems often refuse locks, and a reader harms nobody.
  const Handle access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_file_locking(access.get(), false, true);
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()));
  if (!file) {
    const std::string reason = hdf5_reason();
    if (speaks_of_versions(reason)) throw DataError("{}: {}", path.string(), newer_format(reason));
    if (reason.find("already open for write") != std::string::npos ||
        reason.find("consistency flags") != std::string::npos) {
      throw DataError(
          "{}: was not closed by the program that wrote it, or is still being written; wait for that "
          "program, or, if it is "
          "gone, repair a copy with: h5clear -s COPY ({})",
          path.string(), reason);
    }
    throw DataError("{}: cannot be opened; it is damaged or incomplete, download or copy it again ({})",
                    path.string(), reason);
  }
  const uint64_t file_bytes = std::filesystem::file_size(path, problem);
  if (problem) throw DataError("{}: its size cannot be read: {}", path.string(), problem.message());
  return {std::move(file), path.string() + ":", file_bytes};
}

}  // namespace scrna::data::h5
