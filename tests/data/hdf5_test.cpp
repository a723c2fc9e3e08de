// Opening files, links, storage and texts: what the HDF5 layer accepts and what it refuses, with which
// sentence.
#include "lib/data/hdf5.h"

#include <cstring>
#include <string>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/data/anndata.h"
#include "tests/support/expect_error.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

using test::H5Builder;
using test::Storage;
using test::write_small_file;

std::string problem_with(const std::filesystem::path& path) {
  return test::message_of<DataError>([&] { return h5::open_file(path); });
}

// The sentence that reading all of a damaged file ends in.
template <class Damage>
std::string problem_after(const Damage& damage, const std::string& matrix = "X") {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad", damage);
  return test::message_of<DataError>([&] {
    const AnnDataFile file(folder / "f.h5ad");
    const auto opened = file.open_matrix(matrix);
    return opened->read(0, opened->num_cells());
  });
}

TEST(Hdf5File, WhatIsNotHdf5IsNamedForWhatItIs) {
  const test::TempDir folder;
  const auto problem_of = [&](const std::string& bytes) {
    write_file_atomically(folder / "f", bytes);
    return problem_with(folder / "f");
  };
  EXPECT_CONTAINS(problem_with(folder / "missing.h5ad"), "missing.h5ad: no such file");
  EXPECT_CONTAINS(problem_with(folder.path()), "is a folder");
  EXPECT_CONTAINS(problem_of(""), "empty, or nearly");
  EXPECT_CONTAINS(problem_of("PK\x03\x04 and more"), "zip archive");
  EXPECT_CONTAINS(problem_of("\x1f\x8b\x08 and more"), "gzip archive");
  EXPECT_CONTAINS(problem_of("version https://git-lfs"), "Git LFS pointer");
  EXPECT_CONTAINS(problem_of("BZh91AY&SY..."), "a compressed archive: unpack it first");
  EXPECT_CONTAINS(problem_of("PAR1........"), "Parquet");
  EXPECT_CONTAINS(problem_of("%%MatrixMarket matrix"), "MatrixMarket");
  EXPECT_CONTAINS(problem_of("\x89HDF\n\x1a\n and more"), "begins like one: a damaged copy");
  EXPECT_CONTAINS(problem_of("gene,cell1,cell2\nA,1,2\n"), "a text, perhaps a table");
  EXPECT_CONTAINS(problem_of(std::string("\x01\x02\x03\x04\x05\x06\x07\x08\x09", 9)), "not an HDF5 file;");
  write_file_atomically(folder / "cells.RDS", "\x1f\x8b\x08 and more");
  EXPECT_CONTAINS(problem_with(folder / "cells.RDS"), "R data: write it as .h5ad in R");
}

TEST(Hdf5File, AVersionThatThisHdf5DoesNotKnowIsSaidToBeOne) {
  const test::TempDir folder;
  write_small_file(folder / "f.h5ad");
  std::string bytes = read_file(folder / "f.h5ad");
  bytes[8] = 77;  // of the superblock
  write_file_atomically(folder / "f.h5ad", bytes);
  EXPECT_CONTAINS(problem_with(folder / "f.h5ad"), "is damaged, or written in a newer format than HDF5 1.");
  EXPECT_CONTAINS(problem_with(folder / "f.h5ad"), "write_h5ad(new_path)");
}

TEST(Hdf5File, AFileThatItsWriterHasNotClosedIsNamedAsSuch) {
  const test::TempDir folder;
  const std::filesystem::path path = folder / "f.h5ad";
  const hid_t access = test::must(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
  const hid_t file =
      test::must(H5Fcreate(path.c_str(), H5F_ACC_TRUNC | H5F_ACC_SWMR_WRITE, H5P_DEFAULT, access));
  H5Fflush(file, H5F_SCOPE_GLOBAL);
  const std::string bytes = read_file(path);
  H5Fclose(file);
  H5Pclose(access);
  write_file_atomically(folder / "copy.h5ad", bytes);
  EXPECT_CONTAINS(problem_with(folder / "copy.h5ad"), "was not closed by the program that wrote it");
  EXPECT_CONTAINS(problem_with(folder / "copy.h5ad"), "h5clear -s COPY");
}

TEST(Hdf5File, AUserBlockBeforeTheDataIsPassedOver) {
  const test::TempDir folder;
  write_small_file(folder / "plain.h5ad");
  const hid_t creation = test::must(H5Pcreate(H5P_FILE_CREATE));
  test::must(H5Pset_userblock(creation, 2048));
  const hid_t made = test::must(H5Fcreate((folder / "f.h5ad").c_str(), H5F_ACC_TRUNC, creation, H5P_DEFAULT));
  const hid_t plain = test::must(H5Fopen((folder / "plain.h5ad").c_str(), H5F_ACC_RDONLY, H5P_DEFAULT));
  for (const char* name : {"obs", "var", "X"})
    test::must(H5Ocopy(plain, name, made, name, H5P_DEFAULT, H5P_DEFAULT));
  H5Fclose(plain);
  H5Fclose(made);
  H5Pclose(creation);
  ASSERT_EQ(read_file(folder / "f.h5ad").substr(2048, 4), "\x89HDF");
  EXPECT_EQ(AnnDataFile(folder / "f.h5ad").open_matrix("X")->read(3, 1).values,
            (std::vector<float>{4, 5, 6}));
}

TEST(Hdf5File, APipeIsRefusedInsteadOfWaitedFor) {
  const test::TempDir folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_CONTAINS(problem_with(folder / "pipe"), "is a pipe or a device");
  EXPECT_CONTAINS(problem_with("/dev/zero"), "is a pipe or a device");
}

TEST(Hdf5File, EveryTruncationEndsInOneDataError) {
  const test::TempDir folder;
  write_small_file(folder / "whole.h5ad");
  const std::string bytes = read_file(folder / "whole.h5ad");
  for (std::size_t size = 0; size < bytes.size(); size += 97) {
    write_file_atomically(folder / "cut.h5ad", bytes.substr(0, size));
    EXPECT_THROW(AnnDataFile(folder / "cut.h5ad"), DataError) << size;
  }
}

TEST(Hdf5Link, LinksToOtherFilesAreRefusedWhereverTheyStand) {
  const test::TempDir other;
  write_small_file(other / "other.h5ad");
  const std::string file = (other / "other.h5ad").string();
  for (const std::string path : {"X", "X/data", "X/indices", "X/indptr", "obs", "obs/_index", "var"}) {
    const std::string problem = problem_after([&](H5Builder& h5) {
      h5.remove(path);
      h5.external_link(file, "/" + path, path);
    });
    EXPECT_CONTAINS(problem, path);
    EXPECT_CONTAINS(problem, "another file");
  }
}

TEST(Hdf5Link, ASoftLinkThatLeadsToAnotherFileIsRefused) {
  const test::TempDir other;
  write_small_file(other / "other.h5ad");
  const std::string problem = problem_after([&](H5Builder& h5) {
    h5.remove("X");
    h5.external_link((other / "other.h5ad").string(), "/X", "elsewhere");
    h5.soft_link("/elsewhere", "X");
  });
  EXPECT_CONTAINS(problem, "another file");
}

TEST(Hdf5Link, CirclesAndDeadEndsAreNamed) {
  const std::string circle = problem_after([](H5Builder& h5) {
    h5.remove("X");
    h5.soft_link("/Y", "X");
    h5.soft_link("/X", "Y");
  });
  EXPECT_CONTAINS(circle, "X: is a link that leads nowhere, in a circle");
  const std::string dead_end = problem_after([](H5Builder& h5) {
    h5.remove("X/data");
    h5.soft_link("/nowhere", "X/data");
  });
  EXPECT_CONTAINS(dead_end, "X/data: is a link that leads nowhere");
}

TEST(Hdf5Link, ASoftLinkInsideTheFileIsFollowed) {
  const std::string problem = problem_after([](H5Builder& h5) {
    test::write_small_csr(h5, "elsewhere");
    h5.remove("X");
    h5.soft_link("/elsewhere", "X");
  });
  EXPECT_EQ(problem, "nothing was thrown");
}

TEST(Hdf5Storage, VirtualDataSetsAreRefusedBeforeTheirFilesAreOpened) {
  const std::string problem = problem_after([](H5Builder& h5) {
    h5.remove("X/data");
    const hsize_t size = 6;
    const hid_t space = H5Screate_simple(1, &size, nullptr);
    const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    test::must(H5Pset_virtual(properties, space, "/etc/passwd", "/data", space));
    H5Dclose(test::must(
        H5Dcreate2(h5.file(), "X/data", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, properties, H5P_DEFAULT)));
    H5Pclose(properties);
    H5Sclose(space);
  });
  EXPECT_CONTAINS(problem, "X/data: its contents lie in other files");
}

TEST(Hdf5Storage, ExternalRawStorageIsRefused) {
  const std::string problem = problem_after([](H5Builder& h5) {
    h5.remove("X/data");
    const hsize_t size = 6;
    const hid_t space = H5Screate_simple(1, &size, nullptr);
    const hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    test::must(H5Pset_external(properties, "/etc/passwd", 0, 24));
    H5Dclose(test::must(
        H5Dcreate2(h5.file(), "X/data", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, properties, H5P_DEFAULT)));
    H5Pclose(properties);
    H5Sclose(space);
  });
  EXPECT_CONTAINS(problem, "X/data: its contents lie in other files");
}

TEST(Hdf5Storage, AFilterThatIsMissingIsNamedWithThePackageThatBringsIt) {
  const auto problem_with_filter = [](H5Z_filter_t filter) {
    return problem_after([&](H5Builder& h5) {
      h5.remove("X/data");
      H5Dclose(h5.declare("X/data", H5T_NATIVE_FLOAT, {6}, {.chunk = {6}, .other_filter = filter}));
    });
  };
  const std::string zstd = problem_with_filter(32015);
  EXPECT_CONTAINS(zstd, "X/data: is compressed with zstd (filter 32015)");
  EXPECT_CONTAINS(
      zstd,
      "(the Python package hdf5plugin, whose folder hdf5plugin.PLUGIN_PATH goes into HDF5_PLUGIN_PATH)");
  EXPECT_CONTAINS(zstd, "write_h5ad(new_path, compression='gzip')");
  const std::string blosc = problem_with_filter(32001);
  EXPECT_CONTAINS(blosc, "is compressed with blosc (filter 32001)");
  EXPECT_CONTAINS(blosc, "Debian's hdf5-filter-plugin-blosc-serial, or the Python package hdf5plugin");
  EXPECT_CONTAINS(problem_with_filter(32026), "is compressed with blosc2 (filter 32026)");
  EXPECT_CONTAINS(problem_with_filter(31999), "is compressed with filter 31999 (unnamed)");
}

TEST(Hdf5Storage, NumbersOfMoreBytesThanAnyNumberHasAreNone) {
  const std::string problem = problem_after([](H5Builder& h5) {
    const hid_t type = test::must(H5Tcopy(H5T_NATIVE_INT32));
    test::must(H5Tset_size(type, 72));
    h5.remove("X/indices");
    H5Dclose(h5.declare("X/indices", type, {6}));
    H5Tclose(type);
  });
  EXPECT_CONTAINS(problem, "X/indices: expected integers, got a type that is not supported");
}

// HDF5 1.10 reads beyond the end of a compact data set whose shape is larger than what is stored.
TEST(Hdf5Storage, ACompactDataSetSmallerThanItsShapeIsRefused) {
  const test::TempDir folder;
  {
    H5Builder h5(folder / "f.h5");
    const hsize_t size = 123;
    const hid_t space = test::must(H5Screate_simple(1, &size, nullptr));
    const hid_t properties = test::must(H5Pcreate(H5P_DATASET_CREATE));
    test::must(H5Pset_layout(properties, H5D_COMPACT));
    const std::vector<float> values(size, 1);
    const hid_t dataset =
        test::must(H5Dcreate2(h5.file(), "t", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, properties, H5P_DEFAULT));
    test::must(H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()));
    H5Dclose(dataset);
    H5Pclose(properties);
    H5Sclose(space);
  }
  EXPECT_EQ(h5::open_file(folder / "f.h5").dataset("t").num_elements(), 123U);
  std::string bytes = read_file(folder / "f.h5");
  const uint64_t size = 123, larger = 123456;
  const std::string shape(reinterpret_cast<const char*>(&size), 8);
  int num_changed = 0;
  for (std::size_t at = bytes.find(shape); at != std::string::npos;
       at = bytes.find(shape, at + 8), ++num_changed)
    bytes.replace(at, 8, reinterpret_cast<const char*>(&larger), 8);
  ASSERT_GE(num_changed, 1);
  write_file_atomically(folder / "f.h5", bytes);
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return h5::open_file(folder / "f.h5").dataset("t"); }),
                  "t: declares 493824 bytes, but 492 are stored; the file is damaged");
}

TEST(Hdf5Storage, AChecksumThatDoesNotFitIsADataError) {
  const test::TempDir folder;
  const Storage storage{.chunk = {6}, .fletcher32 = true};
  write_small_file(folder / "f.h5ad", [&](H5Builder& h5) { test::write_small_csr(h5, "X", storage); });
  const AnnDataFile good(folder / "f.h5ad");
  EXPECT_EQ(good.open_matrix("X")->read(0, 4).values.size(), 6U);
  std::string bytes = read_file(folder / "f.h5ad");
  const float values[] = {1, 2, 3, 4, 5, 6};
  const std::size_t at = bytes.find(std::string(reinterpret_cast<const char*>(values), sizeof values));
  ASSERT_NE(at, std::string::npos);
  bytes[at] = static_cast<char>(bytes[at] ^ 1);
  write_file_atomically(folder / "bad.h5ad", bytes);
  const AnnDataFile bad(folder / "bad.h5ad");
  const auto matrix = bad.open_matrix("X");
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return matrix->read(0, 4); }),
                  "X/data: cannot be read (damaged");
}

TEST(Hdf5Storage, SizesThatTheFileCannotHoldAreRefusedBeforeMemoryIsTaken) {
  const hsize_t huge = 1000000000000000;  // 10^15 cells in a file of some kilobytes
  const std::string index = problem_after([&](H5Builder& h5) {
    const Storage storage{.chunk = {1024}, .gzip = 1};
    const hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, H5T_VARIABLE);
    H5Dclose(h5.declare("obs/_index", text, {huge}, storage));
    H5Tclose(text);
    h5.attribute("X", "shape", std::vector<int64_t>{int64_t{1000000000000000}, 3});
  });
  EXPECT_CONTAINS(index, "obs/_index: declares 8000000000000000 bytes, but the whole file has");
  const std::string dense = problem_after([&](H5Builder& h5) {
    h5.remove("X");
    H5Dclose(h5.declare("X", H5T_NATIVE_FLOAT, {huge, huge}, Storage{.chunk = {16, 16}}));
  });
  EXPECT_CONTAINS(dense, "X: declares more bytes than fit 64 bits");
  const std::string indptr = problem_after([&](H5Builder& h5) {
    H5Dclose(h5.declare("X/indptr", H5T_NATIVE_INT64, {huge}, Storage{.chunk = {16}}));
  });
  EXPECT_CONTAINS(indptr, "X/indptr: declares 8000000000000000 bytes");
}

TEST(Hdf5Storage, AChunkLargerThanMemoryShouldGiveIsRefused) {
  const std::string problem = problem_after([](H5Builder& h5) {
    H5Dclose(h5.declare("X/data", H5T_NATIVE_FLOAT, {6}, Storage{.chunk = {500000000}}));
  });
  EXPECT_CONTAINS(problem, "X/data: is stored in chunks of 1907 MB");
}

TEST(Hdf5Text, TextsOfEveryKindAreRead) {
  const test::TempDir folder;
  {
    H5Builder h5(folder / "f.h5");
    h5.texts("variable", {"a", "", "zwölf", std::string("nul\0behind", 10)});
    h5.texts("fixed", {"abc", "", "abcdef", "é"}, 6);
  }
  const h5::Group root = h5::open_file(folder / "f.h5");
  EXPECT_EQ(root.dataset("variable").read_text(), (std::vector<std::string>{"a", "", "zwölf", "nul"}));
  EXPECT_EQ(root.dataset("fixed").read_text(), (std::vector<std::string>{"abc", "", "abcdef", "é"}));
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return root.dataset("fixed").read_integers(); }),
                  "expected numbers, got text");
}

// 64,000 elements that all refer to one text of 256 KiB would take 16 GB; the file has 1.3 MB.
TEST(Hdf5Text, ManyReferencesToOneLongTextDoNotFillTheMemory) {
  const test::TempDir folder;
  {
    H5Builder h5(folder / "f.h5");
    const std::string text(256 << 10, 'x');
    h5.texts("t", std::vector<std::string>(1, text));
    h5.texts("u", std::vector<std::string>(64000, "y"));
  }
  // In the file an element is: length (4 bytes), address of a heap (8), number in it (4).
  std::string bytes = read_file(folder / "f.h5");
  const uint32_t length = 256 << 10, one = 1;
  const std::string long_length(reinterpret_cast<const char*>(&length), 4);
  const std::string short_length(reinterpret_cast<const char*>(&one), 4);
  std::string element;
  std::size_t num_changed = 0;
  for (std::size_t at = bytes.find(long_length); at != std::string::npos && element.empty();
       at = bytes.find(long_length, at + 1)) {
    uint32_t number = 0;
    std::memcpy(&number, bytes.data() + at + 12, 4);
    if (number == 1) element = bytes.substr(at, 16);
  }
  ASSERT_FALSE(element.empty());
  for (std::size_t at = 0; at + 16 <= bytes.size(); ++at) {
    uint32_t number = 0;
    uint64_t address = 0;
    std::memcpy(&number, bytes.data() + at + 12, 4);
    std::memcpy(&address, bytes.data() + at + 4, 8);
    if (bytes.compare(at, 4, short_length) != 0 || address >= bytes.size() || number == 0) continue;
    if (bytes.compare(address, 4, "GCOL") != 0) continue;
    bytes.replace(at, 16, element);
    ++num_changed;
    at += 15;
  }
  ASSERT_GT(num_changed, 10000U);
  write_file_atomically(folder / "bomb.h5", bytes);
  const h5::Group root = h5::open_file(folder / "bomb.h5");
  EXPECT_CONTAINS(test::message_of<DataError>([&] { return root.dataset("u").read_text(); }),
                  "u: cannot be read");
}

TEST(Hdf5Text, AttributesOfAnotherTypeAreAsGoodAsAbsent) {
  const test::TempDir folder;
  {
    H5Builder h5(folder / "f.h5");
    h5.attribute("/", "numbers", std::vector<int64_t>{1, 2});
    h5.attribute("/", "text", std::string("word"));
    h5.attribute("/", "texts", std::vector<std::string>{"a", "b"});
    h5.attribute("/", "none", std::vector<std::string>{});
  }
  const h5::Group root = h5::open_file(folder / "f.h5");
  EXPECT_EQ(root.text_attribute("text"), "word");
  EXPECT_EQ(root.text_attribute("texts"), std::nullopt);
  EXPECT_EQ(root.text_attribute("numbers"), std::nullopt);
  EXPECT_EQ(root.text_attribute("absent"), std::nullopt);
  EXPECT_EQ(root.text_list_attribute("texts"), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(root.text_list_attribute("none"), std::vector<std::string>{});
  EXPECT_EQ(root.integer_list_attribute("numbers"), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(root.integer_list_attribute("text"), std::nullopt);
}

}  // namespace
}  // namespace scrna::data
