// The target sparse_arrays puts the input over the stored bytes of indptr, indices and data of good files,
// plain and compressed, and reads them.
#include <algorithm>
#include <cstring>
#include <mutex>

#include "tests/fuzz/fuzz_h5ad.h"

namespace scrna::fuzz {
namespace {

struct Template {
  std::string bytes;
  std::vector<std::pair<std::size_t, std::size_t>> places;  // offset and length of the stored arrays
};

Template make_template(hid_t index_type, hid_t value_type, bool is_chunked, bool is_shuffled) {
  const Image image;
  const std::scoped_lock lock(data::h5::hdf5_mutex());
  std::string zeros(64, '\0');
  Choices choices(zeros);
  for (const auto& [name, rows] : {std::pair{"obs", kCells}, std::pair{"var", kGenes}}) {
    const hid_t group = H5Gcreate2(image.id(), name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    text_attribute(group, "encoding-type", "dataframe", false);
    text_attribute(group, "_index", "_index", false);
    texts(group, "_index", choices, rows);
    H5Gclose(group);
  }
  const hid_t group = H5Gcreate2(image.id(), "X", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  text_attribute(group, "encoding-type", "csr_matrix", false);
  number_attribute(group, "shape", {kCells, kGenes});
  Template result;
  const auto add = [&](const char* name, hid_t type, std::vector<double> values) {
    const hsize_t size = values.size(), chunk = 4;
    const hid_t space = H5Screate_simple(1, &size, nullptr), properties = H5Pcreate(H5P_DATASET_CREATE);
    if (is_chunked) {
      H5Pset_chunk(properties, 1, &chunk);
      if (is_shuffled) H5Pset_shuffle(properties);
      H5Pset_deflate(properties, 4);
    }
    const hid_t dataset = H5Dcreate2(group, name, type, space, H5P_DEFAULT, properties, H5P_DEFAULT);
    H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, small_buffers(), values.data());
    H5Fflush(image.id(), H5F_SCOPE_GLOBAL);
    if (is_chunked) {
      for (hsize_t at = 0; at < size; at += chunk) {
        haddr_t address = 0;
        hsize_t bytes = 0;
        unsigned mask = 0;
        H5Dget_chunk_info_by_coord(dataset, &at, &mask, &address, &bytes);
        result.places.emplace_back(address, bytes);
      }
    } else {
      result.places.emplace_back(H5Dget_offset(dataset), H5Dget_storage_size(dataset));
    }
    H5Dclose(dataset);
    H5Pclose(properties);
    H5Sclose(space);
  };
  add("indptr", index_type, {0, 2, 2, 5, 6, 8});
  add("indices", index_type, {0, 3, 1, 2, 3, 0, 1, 2});
  add("data", value_type, {1, 5, 2, 1, 1, 9, 3, 1});
  H5Gclose(group);
  result.bytes = image.bytes();
  return result;
}

const std::vector<Template>& templates() {
  static const std::vector<Template> all = {make_template(H5T_STD_I32LE, H5T_IEEE_F32LE, false, false),
                                            make_template(H5T_STD_I64LE, H5T_IEEE_F64LE, false, false),
                                            make_template(H5T_STD_I32LE, H5T_IEEE_F32LE, true, false),
                                            make_template(H5T_STD_I64LE, H5T_STD_I64LE, true, true),
                                            make_template(H5T_STD_U32LE, H5T_STD_U16LE, true, false),
                                            make_template(H5T_STD_U64LE, H5T_STD_U8LE, false, false)};
  return all;
}

}  // namespace

void run_sparse_arrays(std::string_view input) {
  static const ScratchFile file(".h5ad");
  if (input.empty()) return;
  const Template& good = templates()[static_cast<uint8_t>(input[0]) % templates().size()];
  std::string bytes = good.bytes;
  std::size_t at = 1;
  for (const auto& [offset, length] : good.places) {
    const std::size_t count = std::min(length, input.size() - std::min(at, input.size()));
    if (count > 0) std::memcpy(bytes.data() + offset, input.data() + at, count);
    at += length;
  }
  file.write(bytes);
  const data::AnnDataFile opened(file.path());
  read_matrix(opened, "X");
}

std::vector<std::string> seeds_sparse_arrays() {
  std::vector<std::string> seeds;
  for (std::size_t i = 0; i < templates().size(); ++i) {
    std::string input(1, static_cast<char>(i));
    for (const auto& [offset, length] : templates()[i].places)
      input += templates()[i].bytes.substr(offset, length);
    seeds.push_back(input);
  }
  return seeds;
}

}  // namespace scrna::fuzz
