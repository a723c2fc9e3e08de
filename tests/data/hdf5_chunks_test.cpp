// Chunks that are decoded here against HDF5's own reading of the same data set: every kind of number, every
// way to store it, every chunk and ranges across chunks; then what no honest writer stores.
#include "lib/data/hdf5_chunks.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/data/hdf5_lzf.h"
#include "tests/support/expect_error.h"
#include "tests/support/h5_builder.h"
#include "tests/support/temp_dir.h"

namespace scrna::data::h5 {
namespace {

using test::H5Builder;
using test::Storage;
using Random = std::mt19937_64;

constexpr uint64_t kElements = 1000;
const std::vector<Storage> kOwnStorage = {
    {.chunk = {64}},
    {.chunk = {64}, .gzip = 4},
    {.chunk = {100}, .shuffle = true},
    {.chunk = {64}, .gzip = 1, .shuffle = true},
    {.chunk = {1}, .gzip = 1, .shuffle = true},
    {.chunk = {5000}, .gzip = 9},  // one chunk, longer than the data set
};

// Small counts with now and then any pattern of bits.
template <class T>
std::vector<T> values_of(Random& random) {
  std::vector<T> values;
  for (uint64_t i = 0; i < kElements; ++i) {
    if constexpr (std::is_floating_point_v<T>) {
      values.push_back(random() % 8 == 0 ? static_cast<T>(std::ldexp(static_cast<double>(random()),
                                                                     80 - int(random() % 300)))
                                         : static_cast<T>(random() % 50));
    } else {
      values.push_back(random() % 8 == 0 ? static_cast<T>(random()) : static_cast<T>(random() % 50));
    }
  }
  return values;
}

template <class Out>
std::vector<Out> by_hdf5(const Dataset& dataset, uint64_t first, uint64_t count) {
  std::vector<Out> out(count);
  dataset.read(first, count, out.data());
  return out;
}
template <class Out>
std::vector<Out> by_us(const ChunkReader& reader, uint64_t first, uint64_t count) {
  std::vector<Out> out(count);
  reader.read(first, count, out.data());
  return out;
}

template <class Out>
void expect_equal(const Dataset& dataset, const ChunkReader& reader, Random& random) {
  const uint64_t size = dataset.shape()[0], chunk = reader.chunk_elements();
  for (uint64_t first = 0; first < size; first += chunk) {
    const uint64_t count = std::min(chunk, size - first);
    ASSERT_EQ(by_us<Out>(reader, first, count), by_hdf5<Out>(dataset, first, count)) << "chunk at " << first;
  }
  for (int i = 0; i < 50; ++i) {
    const uint64_t first = random() % (size + 1), count = random() % (size - first + 1);
    ASSERT_EQ(by_us<Out>(reader, first, count), by_hdf5<Out>(dataset, first, count))
        << first << " + " << count;
  }
}

template <class T>
class ChunksOf : public ::testing::Test {};
using Numbers =
    ::testing::Types<int8_t, uint8_t, int16_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t, float, double>;
TYPED_TEST_SUITE(ChunksOf, Numbers);

TYPED_TEST(ChunksOf, AreReadAsHdf5ReadsThem) {
  const test::TempDir folder;
  Random random(sizeof(TypeParam));
  {
    H5Builder h5(folder / "f.h5");
    for (std::size_t i = 0; i < kOwnStorage.size(); ++i)
      h5.numbers<TypeParam>(fmt::format("d{}", i), values_of<TypeParam>(random), {}, kOwnStorage[i]);
  }
  const Group root = open_file(folder / "f.h5");
  for (std::size_t i = 0; i < kOwnStorage.size(); ++i) {
    SCOPED_TRACE(i);
    const Dataset dataset = root.dataset(fmt::format("d{}", i));
    const auto reader = ChunkReader::open(dataset);
    ASSERT_NE(reader, nullptr);
    EXPECT_EQ(reader->chunk_elements(), kOwnStorage[i].chunk[0]);
    expect_equal<float>(dataset, *reader, random);
    if constexpr (std::is_integral_v<TypeParam>) expect_equal<int32_t>(dataset, *reader, random);
    if constexpr (std::is_floating_point_v<TypeParam>) {
      std::vector<int32_t> out(1);
      EXPECT_THROW(reader->read(0, 1, out.data()), InternalError);
    }
    std::vector<float> out(1);
    EXPECT_THROW(reader->read(kElements, 1, out.data()), InternalError);
    EXPECT_THROW(reader->read(1, std::numeric_limits<uint64_t>::max(), out.data()), InternalError);
  }
}

TEST(ChunkReader, LeavesOtherStorageToHdf5) {
  const test::TempDir folder;
  {
    H5Builder h5(folder / "f.h5");
    const std::vector<int32_t> values(kElements, 7);
    h5.numbers("contiguous", values);
    h5.numbers("checksummed", values, {}, {.chunk = {64}, .gzip = 1, .fletcher32 = true});
    h5.numbers("two_dimensions", values, {100, 10}, {.chunk = {10, 10}, .gzip = 1});
    h5.numbers("large_chunks", values, {}, {.chunk = {(1 << 20) + 1}, .gzip = 1});
    H5Dclose(h5.declare("big_endian", H5T_STD_I32BE, {kElements}, {.chunk = {64}, .gzip = 1}));
    H5Dclose(h5.declare("half",
                        [] {
                          const hid_t type = test::must(H5Tcopy(H5T_IEEE_F32LE));
                          test::must(H5Tset_fields(type, 15, 10, 5, 0, 10));
                          test::must(H5Tset_size(type, 2));
                          test::must(H5Tset_ebias(type, 15));
                          return type;
                        }(),
                        {kElements}, {.chunk = {64}}));
  }
  const Group root = open_file(folder / "f.h5");
  for (const char* name :
       {"contiguous", "checksummed", "two_dimensions", "large_chunks", "big_endian", "half"}) {
    const Dataset dataset = root.dataset(name);
    EXPECT_EQ(ChunkReader::open(dataset), nullptr) << name;
  }
}

// Stores the bytes of one chunk as they are; `mask` tells which filters they did not go through.
void write_raw(H5Builder& h5, const std::string& path, hsize_t offset, const std::string& bytes,
               uint32_t mask = 0) {
  const hid_t dataset = test::must(H5Dopen2(h5.file(), path.c_str(), H5P_DEFAULT));
  test::must(H5Dwrite_chunk(dataset, H5P_DEFAULT, mask, &offset, bytes.size(), bytes.data()));
  H5Dclose(dataset);
}
std::string read_raw(H5Builder& h5, const std::string& path, hsize_t offset) {
  const hid_t dataset = test::must(H5Dopen2(h5.file(), path.c_str(), H5P_DEFAULT));
  hsize_t size = 0;
  test::must(H5Dget_chunk_storage_size(dataset, &offset, &size));
  std::string bytes(size, '\0');
  uint32_t mask = 0;
  test::must(H5Dread_chunk(dataset, H5P_DEFAULT, &offset, &mask, bytes.data()));
  H5Dclose(dataset);
  return bytes;
}
std::string bytes_of(const std::vector<int32_t>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(int32_t)};
}

TEST(ChunkReader, HonoursFilterMasksAndFillValues) {
  const test::TempDir folder;
  std::vector<int32_t> plain(64);
  for (int32_t i = 0; i < 64; ++i) plain[static_cast<std::size_t>(i)] = i * 1001;
  {
    H5Builder h5(folder / "f.h5");
    // Chunk 0 written, chunk 1 absent, chunk 2 shuffled without gzip, chunk 3 without both.
    H5Dclose(h5.declare("d", H5T_NATIVE_INT32, {256}, {.chunk = {64}, .gzip = 1, .shuffle = true}));
    h5.numbers("source", plain, {}, {.chunk = {64}, .gzip = 1, .shuffle = true});
    h5.numbers("shuffled", plain, {}, {.chunk = {64}, .shuffle = true});
    write_raw(h5, "d", 0, read_raw(h5, "source", 0));
    write_raw(h5, "d", 128, read_raw(h5, "shuffled", 0), 0b10);
    write_raw(h5, "d", 192, bytes_of(plain), 0b11);
  }
  const Group root = open_file(folder / "f.h5");
  const Dataset dataset = root.dataset("d");
  const auto reader = ChunkReader::open(dataset);
  ASSERT_NE(reader, nullptr);
  EXPECT_EQ(by_us<int32_t>(*reader, 0, 64), plain);
  EXPECT_EQ(by_us<int32_t>(*reader, 64, 64), std::vector<int32_t>(64, 0));
  EXPECT_EQ(by_us<int32_t>(*reader, 128, 64), plain);
  EXPECT_EQ(by_us<int32_t>(*reader, 192, 64), plain);
  Random random(1);
  expect_equal<int32_t>(dataset, *reader, random);
}

// The product's filter only decodes, and HDF5 makes no data set with a filter that does not encode.
std::size_t lzf_filter(unsigned flags, std::size_t, const unsigned*, std::size_t num_bytes,
                       std::size_t* buffer_bytes, void** buffer) {
  std::vector<uint8_t> output;
  if ((flags & H5Z_FLAG_REVERSE) == 0 ||
      !decompress_lzf({static_cast<const uint8_t*>(*buffer), num_bytes}, 1 << 20, output))
    return 0;
  H5free_memory(*buffer);
  *buffer = H5allocate_memory(output.size(), false);
  std::copy(output.begin(), output.end(), static_cast<uint8_t*>(*buffer));
  *buffer_bytes = output.size();
  return output.size();
}

TEST(ChunkReader, ReadsLzf) {
  const test::TempDir folder;
  std::vector<int32_t> plain(64);
  for (int32_t i = 0; i < 64; ++i) plain[static_cast<std::size_t>(i)] = i * 77;
  const H5Z_class2_t lzf{H5Z_CLASS_T_VERS, 32000, 1, 1, "lzf of a test", nullptr, nullptr, &lzf_filter};
  test::must(H5Zregister(&lzf));
  std::string literal;  // LZF without repeats: runs of 32 bytes after their length less one
  const std::string bytes = bytes_of(plain);
  for (std::size_t at = 0; at < bytes.size(); at += 32) literal.append(1, 31).append(bytes, at, 32);
  {
    H5Builder h5(folder / "f.h5");
    H5Dclose(h5.declare("d", H5T_NATIVE_INT32, {128}, {.chunk = {64}, .other_filter = 32000}));
    write_raw(h5, "d", 0, literal);
    write_raw(h5, "d", 64, literal.substr(0, literal.size() - 33));
  }
  const Group root = open_file(folder / "f.h5");
  const Dataset dataset = root.dataset("d");
  const auto reader = ChunkReader::open(dataset);
  ASSERT_NE(reader, nullptr);
  EXPECT_EQ(by_us<int32_t>(*reader, 0, 64), plain);
  EXPECT_EQ(by_us<int32_t>(*reader, 0, 64), by_hdf5<int32_t>(dataset, 0, 64));
  EXPECT_THROW(by_us<int32_t>(*reader, 64, 64), DataError);
}

TEST(ChunkReader, DamagedChunksAreDataErrorsThatNameThem) {
  const test::TempDir folder;
  const std::vector<int32_t> values(256, 5);
  std::size_t good_bytes = 0;
  const auto problem_with = [&](const std::function<std::string(std::string)>& damage, uint32_t mask = 0) {
    {
      H5Builder h5(folder / "f.h5");
      h5.numbers("d", values, {}, {.chunk = {64}, .gzip = 6});
      const std::string good = read_raw(h5, "d", 64);
      good_bytes = good.size();
      write_raw(h5, "d", 64, damage(good), mask);
    }
    const Group root = open_file(folder / "f.h5");
    const Dataset dataset = root.dataset("d");
    const auto reader = ChunkReader::open(dataset);
    std::vector<int32_t> out(256);
    std::string problem = test::message_of<DataError>([&] { reader->read(0, 256, out.data()); });
    if (out == values) problem = "read as if nothing had happened";
    EXPECT_EQ(by_us<int32_t>(*reader, 128, 64), std::vector<int32_t>(64, 5)) << "other chunks stay readable";
    return problem;
  };
  const std::string cut =
      problem_with([](const std::string& good) { return good.substr(0, good.size() / 2); });
  EXPECT_NE(cut.find("f.h5:/d: chunk 1 (elements 64 and on) does not decompress to its 256 bytes"),
            std::string::npos)
      << cut;
  EXPECT_NE(problem_with([](const std::string&) { return std::string("no zlib stream"); }).find("chunk 1"),
            std::string::npos);
  EXPECT_NE(problem_with([](const std::string&) {
              return std::string(4097 + 512, 'x');
            }).find("declares 4609 stored bytes for 64 elements"),
            std::string::npos);
  EXPECT_NE(problem_with([](const std::string& good) { return good + "?"; }, 1).find("bytes instead of 256"),
            std::string::npos)
      << "stored without gzip, but too short";
  std::size_t num_refused = 0;
  for (std::size_t at = 2; at < good_bytes;
       ++at) {  // after two bytes of flags, a checksum guards the contents
    const std::string problem = problem_with([&](std::string bytes) {
      bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
      return bytes;
    });
    EXPECT_TRUE(problem.find("chunk 1") != std::string::npos || problem == "read as if nothing had happened")
        << "byte " << at << ": " << problem;
    num_refused += problem.find("chunk 1") != std::string::npos ? 1 : 0;
  }
  EXPECT_GT(num_refused, good_bytes / 2);
}

TEST(ChunkReader, ThreadsReadingSeveralDataSetsDoNotMixThem) {
  const test::TempDir folder;
  Random random(3);
  std::vector<std::vector<int32_t>> expected;
  {
    H5Builder h5(folder / "f.h5");
    for (int i = 0; i < 3; ++i) {
      expected.push_back(values_of<int32_t>(random));
      h5.numbers(fmt::format("d{}", i), expected.back(), {}, kOwnStorage[3]);
    }
  }
  const Group root = open_file(folder / "f.h5");
  std::vector<Dataset> datasets;
  std::vector<std::unique_ptr<const ChunkReader>> readers;
  for (int i = 0; i < 3; ++i) datasets.push_back(root.dataset(fmt::format("d{}", i)));
  for (const Dataset& dataset : datasets) readers.push_back(ChunkReader::open(dataset));
  std::vector<int> num_wrong(4);
  {
    std::vector<std::jthread> threads;
    for (std::size_t thread = 0; thread < num_wrong.size(); ++thread) {
      threads.emplace_back([&, thread] {
        Random draw(thread);
        for (int i = 0; i < 2000; ++i) {
          const std::size_t which = draw() % 3;
          const uint64_t first = draw() % kElements, count = draw() % (kElements - first) % 200;
          const std::vector<int32_t> got = by_us<int32_t>(*readers[which], first, count);
          if (!std::equal(got.begin(), got.end(),
                          expected[which].begin() + static_cast<std::ptrdiff_t>(first)))
            ++num_wrong[thread];
        }
      });
    }
  }
  EXPECT_EQ(num_wrong, std::vector<int>(4, 0));
}

}  // namespace
}  // namespace scrna::data::h5
