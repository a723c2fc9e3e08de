// The target h5ad_tables builds a file in memory from the input, choice by choice: objects of every kind,
// right and wrong types, lengths, attributes, texts, codes and links, all well-formed HDF5, since damage
// inside HDF5's own structures is libhdf5's to survive (README.md). What was built is read as a run reads it.
#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>

#include "lib/data/counts_verdict.h"
#include "lib/data/gene_ids.h"
#include "tests/fuzz/fuzz_h5ad.h"

namespace scrna::fuzz {
namespace {

hid_t stored_type(Choices& choices) {
  const std::array<hid_t, 12> types = {H5T_STD_I8LE,   H5T_STD_U8LE,   H5T_STD_I16LE, H5T_STD_I32LE,
                                       H5T_STD_I64LE,  H5T_STD_U64LE,  H5T_STD_I32BE, H5T_IEEE_F32LE,
                                       H5T_IEEE_F64LE, H5T_IEEE_F32BE, H5T_STD_U32LE, H5T_STD_U16BE};
  return types[choices.below(types.size())];
}

// A data set of numbers: some written, the rest HDF5's zeros; sometimes far larger than anything that is
// stored.
void numbers(hid_t group, const char* name, Choices& choices, int64_t length, bool is_huge = false) {
  std::array<hsize_t, 2> shape = {static_cast<hsize_t>(std::max<int64_t>(0, length)), 1};
  const int rank = choices.one_in(32) ? 2 : choices.one_in(32) ? 0 : 1;
  if (is_huge) shape[0] = static_cast<hsize_t>(1'000'000'000'000'000);
  const hid_t space = rank == 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(rank, shape.data(), nullptr);
  const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
  const hsize_t chunk[2] = {4, 1};
  const bool is_chunked = rank > 0 && (is_huge || choices.one_in(4));
  if (is_chunked) H5Pset_chunk(properties, rank, chunk);
  if (is_chunked && choices.one_in(2)) H5Pset_deflate(properties, 1);
  if (is_chunked && choices.one_in(8)) H5Pset_fletcher32(properties);
  const hid_t dataset =
      H5Dcreate2(group, name, stored_type(choices), space, H5P_DEFAULT, properties, H5P_DEFAULT);
  if (dataset >= 0 && !is_huge && rank == 1 && shape[0] > 0) {
    std::vector<double> values(shape[0]);
    for (double& value : values) {
      const int64_t number = choices.number();
      value = number == -2 ? std::nan("") : static_cast<double>(number);
    }
    H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, small_buffers(), values.data());
  }
  if (dataset >= 0) H5Dclose(dataset);
  H5Pclose(properties);
  H5Sclose(space);
}

std::string encoding(Choices& choices, std::string_view right) {
  constexpr std::array<std::string_view, 10> kAll = {"array",
                                                     "csr_matrix",
                                                     "csc_matrix",
                                                     "dataframe",
                                                     "categorical",
                                                     "string-array",
                                                     "nullable-integer",
                                                     "nullable-boolean",
                                                     "nullable-string-array",
                                                     "anndata"};
  if (!choices.one_in(8)) return std::string(right);
  return choices.one_in(4) ? choices.text() : std::string(kAll[choices.below(kAll.size())]);
}

int64_t length_near(Choices& choices, int64_t right) {
  return choices.one_in(8) ? std::max<int64_t>(0, right + static_cast<int64_t>(choices.below(5)) - 2) : right;
}

void link_or_nothing(hid_t group, const char* name, Choices& choices) {
  switch (choices.below(4)) {
    case 0:
      H5Lcreate_soft("/obs", group, name, H5P_DEFAULT, H5P_DEFAULT);
      break;
    case 1:
      H5Lcreate_soft(name, group, name, H5P_DEFAULT, H5P_DEFAULT);  // to itself
      break;
    case 2:
      H5Lcreate_external("/dev/null", "/", group, name, H5P_DEFAULT, H5P_DEFAULT);
      break;
    default:
      break;
  }
}

void column(hid_t table, const char* name, Choices& choices, int64_t rows) {
  const int64_t length = length_near(choices, rows);
  switch (choices.below(7)) {
    case 0:
      return texts(table, name, choices, length);
    case 1:
    case 2:
      return numbers(table, name, choices, length, choices.one_in(32));
    case 3: {
      const hid_t group = H5Gcreate2(table, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
      text_attribute(group, "encoding-type", encoding(choices, "categorical"), choices.one_in(2));
      if (!choices.one_in(16)) numbers(group, "codes", choices, length);
      if (choices.one_in(4)) {
        numbers(group, "categories", choices, static_cast<int64_t>(choices.below(4)));
      } else {
        texts(group, "categories", choices, static_cast<int64_t>(choices.below(6)));
      }
      H5Gclose(group);
      return;
    }
    case 4: {
      const hid_t group = H5Gcreate2(table, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
      text_attribute(group, "encoding-type",
                     encoding(choices, choices.one_in(2) ? "nullable-integer" : "nullable-string-array"),
                     false);
      if (choices.one_in(2)) {
        numbers(group, "values", choices, length);
      } else {
        texts(group, "values", choices, length);
      }
      if (!choices.one_in(4)) numbers(group, "mask", choices, length_near(choices, length));
      H5Gclose(group);
      return;
    }
    case 5: {  // of AnnData 0.7: codes here, categories in __categories
      numbers(table, name, choices, length);
      const hid_t categories = H5Gcreate2(table, "__categories", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
      if (categories < 0) return;
      texts(categories, name, choices, static_cast<int64_t>(choices.below(5)));
      H5Gclose(categories);
      return;
    }
    default:
      return link_or_nothing(table, name, choices);
  }
}

void table(hid_t file, const char* name, Choices& choices, int64_t rows) {
  if (choices.one_in(32)) return link_or_nothing(file, name, choices);
  if (choices.one_in(32)) return numbers(file, name, choices, rows);
  const hid_t group = H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  if (!choices.one_in(8))
    text_attribute(group, "encoding-type", encoding(choices, "dataframe"), choices.one_in(2));
  const char* const index = choices.one_in(4) ? "index" : "_index";
  if (!choices.one_in(8))
    text_attribute(group, "_index", choices.one_in(8) ? choices.text() : index, choices.one_in(2));
  if (choices.one_in(16)) {
    numbers(group, index, choices, length_near(choices, rows));
  } else {
    texts(group, index, choices, length_near(choices, rows));
  }
  const uint64_t num_columns = choices.below(4);
  for (uint64_t i = 0; i < num_columns; ++i) column(group, std::array{"c0", "c1", "c2"}[i], choices, rows);
  H5Gclose(group);
}

void matrix(hid_t file, const char* name, Choices& choices) {
  if (choices.one_in(16)) return link_or_nothing(file, name, choices);
  if (choices.one_in(4)) {
    const std::array<hsize_t, 2> shape = {
        static_cast<hsize_t>(length_near(choices, kCells)),
        choices.one_in(32) ? hsize_t{1} << 45 : static_cast<hsize_t>(kGenes)};
    const hid_t space = H5Screate_simple(2, shape.data(), nullptr),
                properties = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk[2] = {2, 2};
    if (shape[1] > kGenes || choices.one_in(2)) H5Pset_chunk(properties, 2, chunk);
    const hid_t dataset =
        H5Dcreate2(file, name, stored_type(choices), space, H5P_DEFAULT, properties, H5P_DEFAULT);
    if (dataset >= 0 && shape[1] == kGenes) {
      std::vector<double> values(shape[0] * shape[1]);
      for (double& value : values) value = static_cast<double>(choices.number());
      if (!values.empty())
        H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, small_buffers(), values.data());
    }
    if (dataset >= 0) H5Dclose(dataset);
    H5Pclose(properties);
    H5Sclose(space);
    return;
  }
  const hid_t group = H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  const bool is_csc = choices.one_in(3);
  if (!choices.one_in(8))
    text_attribute(group, choices.one_in(8) ? "h5sparse_format" : "encoding-type",
                   encoding(choices, is_csc ? "csc_matrix" : "csr_matrix"), false);
  if (!choices.one_in(16))
    number_attribute(group, choices.one_in(8) ? "h5sparse_shape" : "shape",
                     choices.one_in(8) ? std::vector<int64_t>{choices.number(), choices.number()}
                                       : std::vector<int64_t>{kCells, kGenes});
  const int64_t entries = static_cast<int64_t>(choices.below(9));
  const bool is_huge = choices.one_in(32);
  numbers(group, "data", choices, length_near(choices, entries), is_huge);
  numbers(group, "indices", choices, length_near(choices, entries), is_huge);
  numbers(group, "indptr", choices, length_near(choices, (is_csc ? kGenes : kCells) + 1));
  H5Gclose(group);
}

std::string build(std::string_view input) {
  Choices choices(input);
  const Image image;
  const std::scoped_lock lock(data::h5::hdf5_mutex());
  if (choices.one_in(2))
    text_attribute(image.id(), "encoding-type", encoding(choices, "anndata"), choices.one_in(2));
  table(image.id(), "obs", choices, kCells);
  table(image.id(), "var", choices, kGenes);
  if (!choices.one_in(16)) matrix(image.id(), "X", choices);
  if (choices.one_in(4)) {
    const hid_t layers = H5Gcreate2(image.id(), "layers", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    matrix(layers, "counts", choices);
    H5Gclose(layers);
  }
  if (choices.one_in(4)) {
    const hid_t raw = H5Gcreate2(image.id(), "raw", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    matrix(raw, "X", choices);
    table(raw, "var", choices, kGenes);
    H5Gclose(raw);
  }
  return image.bytes();
}

void read_all(const std::string& path) {
  const data::AnnDataFile file(path);
  static_cast<void>(file.format());
  for (const std::string& column : file.obs_columns()) {
    attempt([&] { static_cast<void>(file.obs_kind(column)); });
    attempt([&] { static_cast<void>(file.obs_categories(column)); });
    attempt([&] { static_cast<void>(file.obs_numbers(column)); });
  }
  attempt([&] { static_cast<void>(file.obs_index()); });
  for (const std::string& name : file.matrix_names()) {
    attempt([&] { read_matrix(file, name); });
    attempt([&] { static_cast<void>(data::choose_gene_ids(file, name, "")); });
    for (const std::string& column : file.var_columns(name))
      attempt([&] { static_cast<void>(file.var_column(name, column)); });
  }
  attempt([&] { static_cast<void>(data::judge_counts(file, "auto")); });
}

}  // namespace

void run_h5ad_tables(std::string_view input) {
  static const ScratchFile file(".h5ad");
  file.write(build(input));
  read_all(file.path());
}

std::vector<std::string> seeds_h5ad_tables() {
  std::vector<std::string> seeds = {std::string(160, '\0'), std::string(160, '\1')};
  for (int seed = 0; seed < 30; ++seed) {
    std::string bytes;
    for (uint64_t i = 0; i < 160; ++i)
      bytes += static_cast<char>((i * 2654435761U * static_cast<uint64_t>(seed + 3)) >> 13);
    seeds.push_back(bytes);
  }
  return seeds;
}

}  // namespace scrna::fuzz
