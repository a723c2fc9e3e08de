// Makes .h5ad files for tests with the HDF5 C API: valid ones, and what no honest writer would store. Apart
// from lib/data's own writer on purpose: that one cannot write damage, CSC or dense matrices, old encodings
// ... A mistake in using it (a call of HDF5 that fails) throws std::runtime_error, which fails the test.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include <hdf5.h>

namespace scrna::test {

inline hid_t must(hid_t id) {
  if (id < 0) throw std::runtime_error("the test's own HDF5 call failed");
  return id;
}

template <class T>
hid_t native_type() {
  if constexpr (std::is_same_v<T, float>) return H5T_NATIVE_FLOAT;
  if constexpr (std::is_same_v<T, double>) return H5T_NATIVE_DOUBLE;
  if constexpr (std::is_same_v<T, int8_t>) return H5T_NATIVE_INT8;
  if constexpr (std::is_same_v<T, uint8_t>) return H5T_NATIVE_UINT8;
  if constexpr (std::is_same_v<T, int16_t>) return H5T_NATIVE_INT16;
  if constexpr (std::is_same_v<T, uint16_t>) return H5T_NATIVE_UINT16;
  if constexpr (std::is_same_v<T, int32_t>) return H5T_NATIVE_INT32;
  if constexpr (std::is_same_v<T, uint32_t>) return H5T_NATIVE_UINT32;
  if constexpr (std::is_same_v<T, int64_t>) return H5T_NATIVE_INT64;
  if constexpr (std::is_same_v<T, uint64_t>) return H5T_NATIVE_UINT64;
}

/// How a data set is stored.
struct Storage {
  std::vector<hsize_t> chunk = {};  // empty: contiguous
  int gzip = -1;                    // level
  bool shuffle = false;
  bool fletcher32 = false;
  std::optional<H5Z_filter_t> other_filter = {};
};

class H5Builder {
 public:
  explicit H5Builder(const std::filesystem::path& path, bool truncate = true) {
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    file_ = must(truncate ? H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT)
                          : H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT));
  }
  ~H5Builder() { H5Fclose(file_); }
  H5Builder(const H5Builder&) = delete;
  H5Builder& operator=(const H5Builder&) = delete;

  [[nodiscard]] hid_t file() const { return file_; }

  void group(const std::string& path) {
    H5Gclose(must(H5Gcreate2(file_, path.c_str(), parents(), H5P_DEFAULT, H5P_DEFAULT)));
  }

  /// A data set of numbers; an existing one is replaced. `shape` empty: a line.
  template <class T>
  void numbers(const std::string& path, const std::vector<T>& values, std::vector<hsize_t> shape = {},
               const Storage& storage = {}) {
    if (shape.empty()) shape = {values.size()};
    const hid_t dataset = declare(path, native_type<T>(), shape, storage);
    if (!values.empty())
      must(H5Dwrite(dataset, native_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()));
    H5Dclose(dataset);
  }
  /// Only declared: nothing is written, HDF5 allots no space to chunks. Returns the data set, to be closed.
  hid_t declare(const std::string& path, hid_t type, const std::vector<hsize_t>& shape,
                const Storage& storage = {}) {
    remove(path);
    const std::vector<hsize_t> unlimited(shape.size(), H5S_UNLIMITED);  // only then may a chunk be larger
    const hid_t space = must(H5Screate_simple(static_cast<int>(shape.size()), shape.data(),
                                              storage.chunk.empty() ? nullptr : unlimited.data()));
    const hid_t properties = must(H5Pcreate(H5P_DATASET_CREATE));
    if (!storage.chunk.empty())
      must(H5Pset_chunk(properties, static_cast<int>(storage.chunk.size()), storage.chunk.data()));
    if (storage.shuffle) must(H5Pset_shuffle(properties));
    if (storage.gzip >= 0) must(H5Pset_deflate(properties, static_cast<unsigned>(storage.gzip)));
    if (storage.fletcher32) must(H5Pset_fletcher32(properties));
    if (storage.other_filter)
      must(H5Pset_filter(properties, *storage.other_filter, H5Z_FLAG_OPTIONAL, 0, nullptr));
    const hid_t dataset =
        must(H5Dcreate2(file_, path.c_str(), type, space, parents(), properties, H5P_DEFAULT));
    H5Pclose(properties);
    H5Sclose(space);
    return dataset;
  }

  /// Texts of variable length; with `fixed_bytes` of that length, NUL-padded (and not terminated when full).
  void texts(const std::string& path, const std::vector<std::string>& values, std::size_t fixed_bytes = 0) {
    const hid_t type = text_type(fixed_bytes);
    const hid_t dataset = declare(path, type, {values.size()});
    if (!values.empty())
      write_texts(values, fixed_bytes, [&](const void* data) {
        must(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data));
      });
    H5Dclose(dataset);
    H5Tclose(type);
  }

  void attribute(const std::string& path, const std::string& name, const std::string& text) {
    const hid_t space = must(H5Screate(H5S_SCALAR));
    write_text_attribute(path, name, space, {text});
  }
  void attribute(const std::string& path, const std::string& name, const std::vector<std::string>& texts) {
    const hsize_t size = texts.size();
    write_text_attribute(path, name, must(H5Screate_simple(1, &size, nullptr)), texts);
  }
  void attribute(const std::string& path, const std::string& name, const std::vector<int64_t>& values) {
    const hsize_t size = values.size();
    const hid_t space = must(H5Screate_simple(1, &size, nullptr));
    const hid_t made = create_attribute(path, name, H5T_NATIVE_INT64, space);
    must(H5Awrite(made, H5T_NATIVE_INT64, values.data()));
    H5Aclose(made);
    H5Sclose(space);
  }

  void remove(const std::string& path) {
    if (exists(path)) must(H5Ldelete(file_, path.c_str(), H5P_DEFAULT));
  }
  void remove_attribute(const std::string& path, const std::string& name) {
    must(H5Adelete_by_name(file_, path.c_str(), name.c_str(), H5P_DEFAULT));
  }
  void soft_link(const std::string& target, const std::string& path) {
    must(H5Lcreate_soft(target.c_str(), file_, path.c_str(), parents(), H5P_DEFAULT));
  }
  void external_link(const std::string& file, const std::string& target, const std::string& path) {
    must(H5Lcreate_external(file.c_str(), target.c_str(), file_, path.c_str(), parents(), H5P_DEFAULT));
  }
  [[nodiscard]] bool exists(const std::string& path) const {
    for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
      if (H5Lexists(file_, path.substr(0, end).c_str(), H5P_DEFAULT) <= 0) return false;
      if (end == std::string::npos) return true;
    }
  }

  // ---- AnnData

  /// A table of the current encoding with an index and no column.
  void table(const std::string& path, const std::vector<std::string>& index,
             const std::vector<std::string>& columns = {}) {
    group(path);
    attribute(path, "encoding-type", std::string("dataframe"));
    attribute(path, "_index", std::string("_index"));
    if (!columns.empty()) attribute(path, "column-order", columns);
    texts(path + "/_index", index);
  }
  template <class Value, class Index>
  void sparse(const std::string& path, const std::string& encoding, int64_t num_cells, int64_t num_genes,
              const std::vector<Value>& data, const std::vector<Index>& indices,
              const std::vector<int64_t>& indptr, const Storage& storage = {}) {
    remove(path);
    group(path);
    attribute(path, "encoding-type", encoding);
    attribute(path, "shape", std::vector<int64_t>{num_cells, num_genes});
    numbers(path + "/data", data, {}, storage);
    numbers(path + "/indices", indices, {}, storage);
    numbers(path + "/indptr", indptr);
  }

 private:
  static hid_t parents() {
    static const hid_t properties = [] {
      const hid_t made = must(H5Pcreate(H5P_LINK_CREATE));
      must(H5Pset_create_intermediate_group(made, 1));
      return made;
    }();
    return properties;
  }
  static hid_t text_type(std::size_t fixed_bytes) {
    const hid_t type = must(H5Tcopy(H5T_C_S1));
    must(H5Tset_size(type, fixed_bytes == 0 ? H5T_VARIABLE : fixed_bytes));
    must(H5Tset_cset(type, H5T_CSET_UTF8));
    if (fixed_bytes != 0) must(H5Tset_strpad(type, H5T_STR_NULLPAD));
    return type;
  }
  template <class Write>
  static void write_texts(const std::vector<std::string>& values, std::size_t fixed_bytes,
                          const Write& write) {
    if (fixed_bytes == 0) {
      std::vector<const char*> pointers;
      for (const std::string& value : values) pointers.push_back(value.c_str());
      write(static_cast<const void*>(pointers.data()));
      return;
    }
    std::string bytes;
    for (std::string value : values) {
      value.resize(fixed_bytes, '\0');
      bytes += value;
    }
    write(static_cast<const void*>(bytes.data()));
  }
  hid_t create_attribute(const std::string& path, const std::string& name, hid_t type, hid_t space) {
    if (H5Aexists_by_name(file_, path.c_str(), name.c_str(), H5P_DEFAULT) > 0) remove_attribute(path, name);
    return must(H5Acreate_by_name(file_, path.c_str(), name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT,
                                  H5P_DEFAULT));
  }
  void write_text_attribute(const std::string& path, const std::string& name, hid_t space,
                            const std::vector<std::string>& texts) {
    const hid_t type = text_type(0);
    const hid_t made = create_attribute(path, name, type, space);
    if (!texts.empty()) write_texts(texts, 0, [&](const void* data) { must(H5Awrite(made, type, data)); });
    H5Aclose(made);
    H5Tclose(type);
    H5Sclose(space);
  }

  hid_t file_ = H5I_INVALID_HID;
};

/// The file that tests damage: 4 cells x 3 genes, X = CSR float32
///   [1 0 2]
///   [0 0 0]
///   [0 3 0]
///   [4 5 6]
inline std::vector<std::vector<float>> small_matrix() { return {{1, 0, 2}, {0, 0, 0}, {0, 3, 0}, {4, 5, 6}}; }

inline void write_small_csr(H5Builder& file, const std::string& path = "X", const Storage& storage = {}) {
  file.sparse<float, int32_t>(path, "csr_matrix", 4, 3, {1, 2, 3, 4, 5, 6}, {0, 2, 1, 0, 1, 2},
                              {0, 2, 2, 3, 6}, storage);
}
inline void write_small_tables(H5Builder& file) {
  file.table("obs", {"a", "b", "c", "d"});
  file.table("var", {"G0", "G1", "G2"});
}
/// Makes the file and lets `damage` change it.
template <class Damage>
void write_small_file(const std::filesystem::path& path, const Damage& damage) {
  H5Builder file(path);
  file.attribute("/", "encoding-type", std::string("anndata"));
  write_small_tables(file);
  write_small_csr(file);
  damage(file);
}
inline void write_small_file(const std::filesystem::path& path) {
  write_small_file(path, [](H5Builder&) {});
}

}  // namespace scrna::test
