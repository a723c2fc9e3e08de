// Reading a line of numbers chunk by chunk without HDF5's filter pipeline: only taking a chunk's stored bytes
// (H5Dread_chunk) holds the lock of HDF5; inflating (libdeflate), undoing the shuffle and converting run in
// the calling thread, so that several threads read one file at once. HDF5 itself inflates with zlib under its
// lock: one core, half as fast. Done here: integers and floats of this machine's byte order, stored plainly
// or with shuffle, gzip or LZF, in chunks up to 4 MiB. Everything else is HDF5's (Dataset::read). Rejected:
// pread at the chunks' addresses, for which HDF5 1.10 has only a search that is linear in the number of
// chunks; and a thread that hands out chunks, which costs a queue and saves nothing: taking one is a copy of
// some 100 kB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lib/data/hdf5.h"

namespace scrna::data::h5 {

/// Thread-safe. Each thread that reads keeps two decoded chunks (one of integers, one of floats) and the
/// buffers they came through, at most 6 x 4 MiB, however many files there are.
class ChunkReader {
 public:
  /// nullptr when the data set is stored in a way that only HDF5 reads. `dataset` must outlive the result.
  static std::unique_ptr<const ChunkReader> open(const Dataset& dataset);

  /// Elements [first, first + count), the same as Dataset::read() gives: integers beyond int32 are clipped,
  /// doubles rounded. Chunks that the file does not hold are left to HDF5. Throws DataError for a damaged
  /// chunk.
  void read(uint64_t first, uint64_t count, int32_t* out) const;
  void read(uint64_t first, uint64_t count, float* out) const;

  [[nodiscard]] uint64_t chunk_elements() const { return chunk_elements_; }

 private:
  enum class Number { kInt8, kUInt8, kInt16, kUInt16, kInt32, kUInt32, kInt64, kUInt64, kFloat32, kFloat64 };
  enum class Codec { kNone, kDeflate, kLzf };
  struct Scratch;

  explicit ChunkReader(const Dataset& dataset) : dataset_(dataset) {}
  bool understand_storage();
  bool understand_filters(hid_t properties);
  [[nodiscard]] bool fetch(uint64_t chunk, Scratch& scratch) const;
  void decode(uint64_t chunk, Scratch& scratch) const;
  [[nodiscard]] bool is_plain_gzip(const Scratch& scratch, Number number) const;
  void inflate(uint64_t chunk, Scratch& scratch, void* out) const;
  [[noreturn]] void fail(uint64_t chunk, const std::string& problem) const;
  template <class Out>
  void read_as(uint64_t first, uint64_t count, Out* out) const;
  template <class Out>
  void convert(const Scratch& scratch, uint64_t first, uint64_t count, Out* out) const;

  const Dataset& dataset_;
  uint64_t id_ = 0;  // unlike that of any other reader of this process
  Number number_ = Number::kInt8;
  uint64_t element_bytes_ = 0;
  uint64_t chunk_elements_ = 0;
  Codec codec_ = Codec::kNone;
  bool is_shuffled_ = false;
  uint32_t shuffle_bit_ = 0,
           codec_bit_ = 0;  // in the filter mask of a chunk: set when the filter was left out
};

}  // namespace scrna::data::h5
