#include "lib/data/hdf5_chunks.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <limits>
#include <mutex>
#include <type_traits>

#include <libdeflate.h>

#include "lib/core/error.h"
#include "lib/data/hdf5_detail.h"
#include "lib/data/hdf5_lzf.h"

namespace scrna::data::h5 {
namespace {

constexpr uint64_t kMaxChunkBytes = uint64_t{4} << 20;
constexpr H5Z_filter_t kLzf = 32000;

// What one chunk may take in the file: deflate and LZF hardly ever lengthen, and then by a few bytes in a
// thousand.
uint64_t most_stored_bytes(uint64_t chunk_bytes) { return 2 * chunk_bytes + 4096; }

// As HDF5 converts: integers are clipped; a double beyond float32 becomes infinite.
template <class Out, class Stored>
Out converted(Stored value) {
  if constexpr (std::is_same_v<Out, int32_t>) {
    if constexpr (std::is_unsigned_v<Stored>) {
      return static_cast<int32_t>(std::min<uint64_t>(value, std::numeric_limits<int32_t>::max()));
    } else {
      return static_cast<int32_t>(std::clamp<int64_t>(value, std::numeric_limits<int32_t>::min(),
                                                      std::numeric_limits<int32_t>::max()));
    }
  } else {
    if constexpr (std::is_same_v<Stored, double>) {
      constexpr double kMax = std::numeric_limits<float>::max();
      if (value > kMax) return std::numeric_limits<float>::infinity();
      if (value < -kMax) return -std::numeric_limits<float>::infinity();
    }
    return static_cast<float>(value);
  }
}

template <std::size_t kBytes>
using Bits = std::conditional_t<
    kBytes == 1, uint8_t,
    std::conditional_t<kBytes == 2, uint16_t, std::conditional_t<kBytes == 4, uint32_t, uint64_t>>>;

// Elements [first, first + count) of a chunk of `total`. The shuffle stores the first bytes of all elements,
// then all second bytes, and so on.
template <class Stored, class Out>
void convert_elements(const uint8_t* chunk, uint64_t total, bool is_shuffled, uint64_t first, uint64_t count,
                      Out* out) {
  using Word = Bits<sizeof(Stored)>;
  if (!is_shuffled || sizeof(Stored) == 1) {
    const uint8_t* from = chunk + first * sizeof(Stored);
    if constexpr (std::is_same_v<Stored, Out>) {
      std::memcpy(out, from, count * sizeof(Stored));
    } else {
      for (uint64_t i = 0; i < count; ++i) {
        Stored value;
        std::memcpy(&value, from + i * sizeof(Stored), sizeof(Stored));
        out[i] = converted<Out>(value);
      }
    }
    return;
  }
  std::array<const uint8_t*, sizeof(Stored)> plane;
  for (std::size_t byte = 0; byte < sizeof(Stored); ++byte) plane[byte] = chunk + byte * total + first;
  for (uint64_t i = 0; i < count; ++i) {
    Word word = 0;
    for (std::size_t byte = 0; byte < sizeof(Stored); ++byte)
      word = static_cast<Word>(word | static_cast<Word>(Word{plane[byte][i]} << (8 * byte)));
    out[i] = converted<Out>(std::bit_cast<Stored>(word));
  }
}

}  // namespace

// Of one thread, for one kind of number: the last chunk it decoded, and what it needs to decode the next.
struct ChunkReader::Scratch {
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { libdeflate_free_decompressor(inflater); }

  libdeflate_decompressor* inflater = nullptr;
  std::vector<uint8_t> stored;     // bytes of the file
  std::vector<uint8_t> decoded;    // at least a chunk
  const uint8_t* chunk = nullptr;  // the bytes of the chunk, in one of the two
  std::size_t stored_bytes = 0;
  uint32_t filter_mask = 0;
  bool is_shuffled = false;
  uint64_t reader_id = 0, chunk_index = 0;  // of the chunk that `chunk` holds; 0: none
};

std::unique_ptr<const ChunkReader> ChunkReader::open(const Dataset& dataset) {
  if constexpr (std::endian::native != std::endian::little) return nullptr;
  static std::atomic<uint64_t> num_readers = 0;
  std::unique_ptr<ChunkReader> reader(new ChunkReader(dataset));
  const std::scoped_lock lock(hdf5_mutex());
  detail::silence();
  if (!reader->understand_storage()) return nullptr;
  reader->id_ = ++num_readers;
  return reader;
}

bool ChunkReader::understand_storage() {
  const hid_t type = dataset_.type_id();
  const std::array<std::pair<hid_t, Number>, 10> kinds = {{{H5T_STD_I8LE, Number::kInt8},
                                                           {H5T_STD_U8LE, Number::kUInt8},
                                                           {H5T_STD_I16LE, Number::kInt16},
                                                           {H5T_STD_U16LE, Number::kUInt16},
                                                           {H5T_STD_I32LE, Number::kInt32},
                                                           {H5T_STD_U32LE, Number::kUInt32},
                                                           {H5T_STD_I64LE, Number::kInt64},
                                                           {H5T_STD_U64LE, Number::kUInt64},
                                                           {H5T_IEEE_F32LE, Number::kFloat32},
                                                           {H5T_IEEE_F64LE, Number::kFloat64}}};
  const auto* const kind = std::find_if(kinds.begin(), kinds.end(),
                                        [&](const auto& each) { return H5Tequal(type, each.first) > 0; });
  if (kind == kinds.end() || dataset_.is_field() || dataset_.shape().size() != 1) return false;
  number_ = kind->second;
  element_bytes_ = H5Tget_size(type);
  const Handle properties = detail::checked(H5Dget_create_plist(dataset_.id()), dataset_.where());
  if (H5Pget_layout(properties.get()) != H5D_CHUNKED) return false;
  unsigned options = 0;  // an incomplete last chunk may be stored in another way than the others
  if (H5Pget_chunk_opts(properties.get(), &options) < 0 || options != 0) return false;
  hsize_t elements = 0;
  if (H5Pget_chunk(properties.get(), 1, &elements) != 1) return false;
  if (elements == 0 || elements > kMaxChunkBytes / element_bytes_) return false;
  chunk_elements_ = elements;
  return understand_filters(properties.get());
}

bool ChunkReader::understand_filters(hid_t properties) {
  const int num_filters = H5Pget_nfilters(properties);
  for (int i = 0; i < num_filters; ++i) {
    unsigned flags = 0;
    std::size_t num_values = 0;
    const H5Z_filter_t filter = H5Pget_filter2(properties, static_cast<unsigned>(i), &flags, &num_values,
                                               nullptr, 0, nullptr, nullptr);
    if (filter == H5Z_FILTER_SHUFFLE && i == 0) {
      is_shuffled_ = true;
      shuffle_bit_ = 1U << i;
    } else if ((filter == H5Z_FILTER_DEFLATE || filter == kLzf) && codec_ == Codec::kNone) {
      codec_ = filter == kLzf ? Codec::kLzf : Codec::kDeflate;
      codec_bit_ = 1U << i;
    } else {
      return false;
    }
  }
  return true;
}

void ChunkReader::fail(uint64_t chunk, const std::string& problem) const {
  throw DataError("{}: chunk {} (elements {} and on) {}; the file is damaged, download or copy it again",
                  dataset_.where(), chunk, chunk * chunk_elements_, problem);
}

// False when the file holds no such chunk, or HDF5 does not say.
bool ChunkReader::fetch(uint64_t chunk, Scratch& scratch) const {
  const std::scoped_lock lock(hdf5_mutex());
  detail::silence();
  const hsize_t offset = chunk * chunk_elements_;
  hsize_t bytes = 0;
  if (H5Dget_chunk_storage_size(dataset_.id(), &offset, &bytes) < 0 || bytes == 0) {
    H5Eclear2(H5E_DEFAULT);
    return false;
  }
  if (bytes > most_stored_bytes(chunk_elements_ * element_bytes_) || bytes > dataset_.file_bytes()) {
    fail(chunk, fmt::format("declares {} stored bytes for {} elements, and the file has {} bytes", bytes,
                            chunk_elements_, dataset_.file_bytes()));
  }
  if (scratch.stored.size() < bytes) scratch.stored.resize(bytes);
  if (H5Dread_chunk(dataset_.id(), H5P_DEFAULT, &offset, &scratch.filter_mask, scratch.stored.data()) < 0)
    fail(chunk, fmt::format("cannot be read ({})", hdf5_reason()));
  scratch.stored_bytes = bytes;
  return true;
}

void ChunkReader::decode(uint64_t chunk, Scratch& scratch) const {
  const std::size_t chunk_bytes = chunk_elements_ * element_bytes_;
  scratch.is_shuffled = is_shuffled_ && (scratch.filter_mask & shuffle_bit_) == 0;
  if (codec_ == Codec::kNone || (scratch.filter_mask & codec_bit_) != 0) {
    if (scratch.stored_bytes != chunk_bytes)
      fail(chunk, fmt::format("has {} bytes instead of {}", scratch.stored_bytes, chunk_bytes));
    scratch.chunk = scratch.stored.data();
    return;
  }
  if (codec_ == Codec::kDeflate) {
    if (scratch.decoded.size() < chunk_bytes) scratch.decoded.resize(chunk_bytes);
    inflate(chunk, scratch, scratch.decoded.data());
  } else if (!decompress_lzf({scratch.stored.data(), scratch.stored_bytes}, chunk_bytes, scratch.decoded) ||
             scratch.decoded.size() != chunk_bytes) {
    fail(chunk, fmt::format("does not decompress to its {} bytes", chunk_bytes));
  }
  scratch.chunk = scratch.decoded.data();
}

// A chunk of exactly the numbers that are asked for once it is inflated.
bool ChunkReader::is_plain_gzip(const Scratch& scratch, Number number) const {
  return codec_ == Codec::kDeflate && (scratch.filter_mask & codec_bit_) == 0 && number_ == number &&
         (!is_shuffled_ || (scratch.filter_mask & shuffle_bit_) != 0);
}

void ChunkReader::inflate(uint64_t chunk, Scratch& scratch, void* out) const {
  const std::size_t chunk_bytes = chunk_elements_ * element_bytes_;
  if (scratch.inflater == nullptr) {
    scratch.inflater = libdeflate_alloc_decompressor();
    if (scratch.inflater == nullptr) throw std::bad_alloc();
  }
  if (libdeflate_zlib_decompress(scratch.inflater, scratch.stored.data(), scratch.stored_bytes, out,
                                 chunk_bytes, nullptr) != LIBDEFLATE_SUCCESS)
    fail(chunk, fmt::format("does not decompress to its {} bytes", chunk_bytes));
}

template <class Out>
void ChunkReader::convert(const Scratch& scratch, uint64_t first, uint64_t count, Out* out) const {
  const auto convert_as = [&]<class Stored>(Stored) {
    if constexpr (!std::is_floating_point_v<Stored> || std::is_floating_point_v<Out>)  // checked by read()
      convert_elements<Stored>(scratch.chunk, chunk_elements_, scratch.is_shuffled, first, count, out);
  };
  switch (number_) {
    case Number::kInt8:
      return convert_as(int8_t{});
    case Number::kUInt8:
      return convert_as(uint8_t{});
    case Number::kInt16:
      return convert_as(int16_t{});
    case Number::kUInt16:
      return convert_as(uint16_t{});
    case Number::kInt32:
      return convert_as(int32_t{});
    case Number::kUInt32:
      return convert_as(uint32_t{});
    case Number::kInt64:
      return convert_as(int64_t{});
    case Number::kUInt64:
      return convert_as(uint64_t{});
    case Number::kFloat32:
      return convert_as(float{});
    case Number::kFloat64:
      return convert_as(double{});
  }
}

template <class Out>
void ChunkReader::read_as(uint64_t first, uint64_t count, Out* out) const {
  static thread_local Scratch scratch;  // of this thread and kind of number
  constexpr Number kOut = std::is_same_v<Out, int32_t> ? Number::kInt32 : Number::kFloat32;
  const uint64_t size = dataset_.shape()[0];
  SCRNA_CHECK(first <= size && count <= size - first, "{}: elements {} + {} of {}", dataset_.where(), first,
              count, size);
  const uint64_t end = first + count;
  while (first < end) {
    const uint64_t chunk = first / chunk_elements_;
    const uint64_t in_chunk = first - chunk * chunk_elements_;
    const uint64_t part = std::min(end - first, chunk_elements_ - in_chunk);
    bool is_here = scratch.reader_id == id_ && scratch.chunk_index == chunk;
    bool is_done = false;
    if (!is_here) {
      scratch.reader_id = 0;
      const bool is_stored = fetch(chunk, scratch);
      if (is_stored && part == chunk_elements_ && is_plain_gzip(scratch, kOut)) {
        inflate(chunk, scratch, out);
        is_done = true;
      } else if (is_stored) {
        decode(chunk, scratch);
        scratch.reader_id = id_;
        scratch.chunk_index = chunk;
        is_here = true;
      }
    }
    if (is_here) {
      convert(scratch, in_chunk, part, out);
    } else if (!is_done) {  // never written: its elements have the data set's fill value
      dataset_.read(first, part, out);
    }
    first += part;
    out += part;
  }
}

void ChunkReader::read(uint64_t first, uint64_t count, int32_t* out) const {
  SCRNA_CHECK(number_ != Number::kFloat32 && number_ != Number::kFloat64, "{}: holds no integers",
              dataset_.where());
  read_as(first, count, out);
}
void ChunkReader::read(uint64_t first, uint64_t count, float* out) const { read_as(first, count, out); }

}  // namespace scrna::data::h5
