// Damages valid .h5ad files with the HDF5 C API: what an interrupted copy or a faulty writer leaves behind.
#pragma once

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

#include <hdf5.h>

namespace scrna::test {

class OpenFile {
 public:
  explicit OpenFile(const std::filesystem::path& path)
      : id_(must(H5Fopen(path.c_str(), H5F_ACC_RDWR, H5P_DEFAULT))) {}
  ~OpenFile() { H5Fclose(id_); }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  void remove(const std::string& object) { must(H5Ldelete(id_, object.c_str(), H5P_DEFAULT)); }
  /// One element of a line of integers.
  void set(const std::string& dataset, hsize_t position, int64_t value) {
    const hid_t data = must(H5Dopen2(id_, dataset.c_str(), H5P_DEFAULT));
    const hid_t in_file = must(H5Dget_space(data));
    const hsize_t one = 1;
    must(H5Sselect_hyperslab(in_file, H5S_SELECT_SET, &position, nullptr, &one, nullptr));
    const hid_t in_memory = must(H5Screate_simple(1, &one, nullptr));
    must(H5Dwrite(data, H5T_NATIVE_INT64, in_memory, in_file, H5P_DEFAULT, &value));
    H5Sclose(in_memory);
    H5Sclose(in_file);
    H5Dclose(data);
  }
  /// The same number of elements, of a type that stands for nothing (opaque).
  void make_opaque(const std::string& dataset) {
    const hid_t data = must(H5Dopen2(id_, dataset.c_str(), H5P_DEFAULT));
    const hid_t space = must(H5Dget_space(data));
    H5Dclose(data);
    remove(dataset);
    hsize_t size = 0;
    must(H5Sget_simple_extent_dims(space, &size, nullptr));
    const hid_t plain = must(H5Screate_simple(1, &size, nullptr));
    const hid_t type = must(H5Tcreate(H5T_OPAQUE, 4));
    H5Dclose(must(H5Dcreate2(id_, dataset.c_str(), type, plain, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)));
    H5Tclose(type);
    H5Sclose(plain);
    H5Sclose(space);
  }

 private:
  static hid_t must(hid_t id) {
    if (id < 0) throw std::runtime_error("the test's own HDF5 call failed");
    return id;
  }
  hid_t id_;
};

}  // namespace scrna::test
