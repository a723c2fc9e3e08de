#include "tests/fuzz/fuzz_h5ad.h"

#include <algorithm>
#include <mutex>

#include "lib/data/cell_source.h"

namespace scrna::fuzz {

hid_t small_buffers() {
  static const hid_t properties = [] {
    const hid_t transfer = H5Pcreate(H5P_DATASET_XFER);
    H5Pset_buffer(transfer, 4096, nullptr, nullptr);
    return transfer;
  }();
  return properties;
}

Image::Image() {
  const std::scoped_lock lock(data::h5::hdf5_mutex());
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_fapl_core(access, 65536, 0);
  file_ = H5Fcreate("fuzz", H5F_ACC_TRUNC, H5P_DEFAULT, access);
  H5Pclose(access);
}

Image::~Image() {
  if (file_ >= 0) H5Fclose(file_);
}

std::string Image::bytes() const {
  H5Fflush(file_, H5F_SCOPE_GLOBAL);
  std::string image(static_cast<std::size_t>(std::max<ssize_t>(0, H5Fget_file_image(file_, nullptr, 0))),
                    '\0');
  H5Fget_file_image(file_, image.data(), image.size());
  return image;
}

void text_attribute(hid_t object, const char* name, const std::string& value, bool is_fixed) {
  const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
  H5Tset_size(type, is_fixed ? std::max<std::size_t>(1, value.size()) : H5T_VARIABLE);
  const hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  const char* text = value.c_str();
  H5Awrite(attribute, type, is_fixed ? static_cast<const void*>(text) : &text);
  H5Aclose(attribute);
  H5Sclose(space);
  H5Tclose(type);
}

void number_attribute(hid_t object, const char* name, const std::vector<int64_t>& values) {
  const hsize_t size = values.size();
  const hid_t space = H5Screate_simple(1, &size, nullptr);
  const hid_t attribute = H5Acreate2(object, name, H5T_NATIVE_INT64, space, H5P_DEFAULT, H5P_DEFAULT);
  if (!values.empty()) H5Awrite(attribute, H5T_NATIVE_INT64, values.data());
  H5Aclose(attribute);
  H5Sclose(space);
}

void texts(hid_t group, const char* name, Choices& choices, int64_t length) {
  std::vector<std::string> values;
  for (int64_t i = 0; i < length; ++i)
    values.push_back(choices.one_in(3) ? choices.text() : "id" + std::to_string(i));
  const hsize_t size = values.size();
  const bool is_fixed = choices.one_in(3);
  const hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate_simple(1, &size, nullptr);
  H5Tset_size(type, is_fixed ? 6 : H5T_VARIABLE);
  if (choices.one_in(2)) H5Tset_cset(type, H5T_CSET_UTF8);
  const hid_t dataset = H5Dcreate2(group, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  if (is_fixed) {
    std::string block;
    for (std::string& value : values) {
      value.resize(6);
      block += value;
    }
    if (size > 0) H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, small_buffers(), block.data());
  } else {
    std::vector<const char*> pointers;
    for (const std::string& value : values) pointers.push_back(value.c_str());
    if (size > 0) H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, small_buffers(), pointers.data());
  }
  H5Dclose(dataset);
  H5Sclose(space);
  H5Tclose(type);
}

void read_matrix(const data::AnnDataFile& file, const std::string& name) {
  const auto matrix = file.open_matrix(name);
  data::CellSource source{.name = "fuzz.h5ad", .matrix = matrix, .gene_ids = {}, .groups = {}, .chosen = {}};
  source.gene_ids.ids.assign(static_cast<std::size_t>(std::min<int64_t>(matrix->num_genes(), 100)), "gene");
  for (int64_t first = 0; first < std::min<int64_t>(matrix->num_cells(), 64); first += 2) {
    const int64_t count = std::min<int64_t>(2, matrix->num_cells() - first);
    const data::CellBlock block = matrix->read(first, count);
    if (block.num_cells() != count || block.genes.size() != block.values.size() ||
        block.indptr.back() != std::ssize(block.genes))
      throw InternalError("a block contradicts itself");
    for (std::size_t cell = 0; cell + 1 < block.indptr.size(); ++cell) {
      for (int64_t i = block.indptr[cell]; i < block.indptr[cell + 1]; ++i) {
        const auto at = static_cast<std::size_t>(i);
        if (block.genes[at] < 0 || block.genes[at] >= matrix->num_genes() ||
            (i > block.indptr[cell] && block.genes[at] <= block.genes[at - 1]))
          throw InternalError("genes of a cell that do not rise");
      }
    }
    if (matrix->num_genes() <= 100) attempt([&] { check_values(source, block); });
  }
}

}  // namespace scrna::fuzz
