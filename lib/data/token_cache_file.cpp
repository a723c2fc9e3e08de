#include "lib/data/token_cache_file.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include <fcntl.h>
#include <libdeflate.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/core/error.h"
#include "lib/core/files.h"

namespace scrna::data {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is that of little-endian machines");

struct Header {
  char magic[8] = {'S', 'C', 'R', 'N', 'A', 'T', 'C', '1'};
  char identity_hash[64] = {};
  uint64_t first_row = 0, num_rows = 0, num_tokens = 0;
  uint32_t token_bytes = 0;
  uint32_t checksum = 0;  // CRC-32 of what follows the header
  char reserved[24] = {};
};
static_assert(sizeof(Header) == 128);

constexpr const char* kRemedy = "remove the file and run scrna-train cache again: it writes what is missing";

uint32_t checksum_of(std::string_view bytes) { return libdeflate_crc32(0, bytes.data(), bytes.size()); }

template <class Stored>
void append_bytes(std::string& bytes, const std::vector<int32_t>& tokens) {
  const std::size_t at = bytes.size();
  bytes.resize(at + tokens.size() * sizeof(Stored));
  auto* to = bytes.data() + at;
  for (const int32_t token : tokens) {
    const auto stored = static_cast<Stored>(token);
    std::memcpy(to, &stored, sizeof(Stored));
    to += sizeof(Stored);
  }
}

}  // namespace

void write_cache_file(const std::filesystem::path& path, const CacheFileKey& key,
                      const std::vector<uint64_t>& begin, const std::vector<int32_t>& tokens) {
  SCRNA_CHECK(std::ssize(begin) == key.num_rows + 1 && begin.back() == tokens.size(), "{} rows, {} tokens",
              begin.size(), tokens.size());
  std::string bytes(begin.size() * sizeof(uint64_t), '\0');
  std::memcpy(bytes.data(), begin.data(), bytes.size());
  if (key.token_bytes() == 2) {
    append_bytes<uint16_t>(bytes, tokens);
  } else {
    append_bytes<uint32_t>(bytes, tokens);
  }
  Header header;
  SCRNA_CHECK(key.identity_hash.size() == sizeof(header.identity_hash), "{}", key.identity_hash);
  std::copy(key.identity_hash.begin(), key.identity_hash.end(), header.identity_hash);
  header.first_row = static_cast<uint64_t>(key.first_row);
  header.num_rows = static_cast<uint64_t>(key.num_rows);
  header.num_tokens = tokens.size();
  header.token_bytes = static_cast<uint32_t>(key.token_bytes());
  header.checksum = checksum_of(bytes);
  AtomicFile file(path);
  file.write(&header, sizeof(header));
  file.write(bytes);
  file.commit();
}

CacheFile::CacheFile(const std::filesystem::path& path, const CacheFileKey& key) : path_(path), key_(key) {
  std::error_code problem;
  map_bytes_ = std::filesystem::file_size(path, problem);
  const int file = problem ? -1 : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw DataError("{}: cannot be opened; {}", path.string(), kRemedy);
  const std::size_t places_bytes = (static_cast<std::size_t>(key.num_rows) + 1) * sizeof(uint64_t);
  tokens_at_ = sizeof(Header) + places_bytes;
  void* map =
      map_bytes_ < tokens_at_ ? MAP_FAILED : ::mmap(nullptr, map_bytes_, PROT_READ, MAP_SHARED, file, 0);
  ::close(file);
  if (map == MAP_FAILED)
    throw DataError("{}: has {} bytes, too few for its {} rows (or cannot be mapped); {}", path.string(),
                    map_bytes_, key.num_rows, kRemedy);
  map_ = static_cast<char*>(map);
  try {
    Header header, expected;
    std::memcpy(&header, map_, sizeof(header));
    if (std::memcmp(header.magic, expected.magic, sizeof(header.magic)) != 0 ||
        std::memcmp(header.reserved, expected.reserved, sizeof(header.reserved)) != 0 ||
        std::string_view(header.identity_hash, sizeof(header.identity_hash)) != key.identity_hash ||
        header.first_row != static_cast<uint64_t>(key.first_row) ||
        header.num_rows != static_cast<uint64_t>(key.num_rows) ||
        header.token_bytes != static_cast<uint32_t>(key.token_bytes())) {
      throw DataError("{}: is no part of this cache; {}", path.string(), kRemedy);
    }
    checksum_ = header.checksum;
    begin_ = {reinterpret_cast<const uint64_t*>(map_ + sizeof(Header)),
              static_cast<std::size_t>(key.num_rows) + 1};
    const uint64_t room = (map_bytes_ - tokens_at_) / header.token_bytes;
    if (header.num_tokens != room || (map_bytes_ - tokens_at_) % header.token_bytes != 0 ||
        begin_.front() != 0 || begin_.back() != room || !std::is_sorted(begin_.begin(), begin_.end()))
      throw DataError("{}: its length and the places of its rows contradict each other; {}", path.string(),
                      kRemedy);
  } catch (...) {
    ::munmap(map_, map_bytes_);
    throw;
  }
}

CacheFile::~CacheFile() { ::munmap(map_, map_bytes_); }

int64_t CacheFile::num_tokens(int64_t row) const {
  const auto at = static_cast<std::size_t>(row);
  return static_cast<int64_t>(begin_[at + 1] - begin_[at]);
}

void CacheFile::verify() const {
  if (is_verified_) return;
  const std::scoped_lock lock(mutex_);
  if (is_verified_) return;
  if (checksum_of(bytes().substr(sizeof(Header))) != checksum_)
    throw DataError("{}: does not have its checksum: it is damaged; {}", path_.string(), kRemedy);
  const auto num = static_cast<std::size_t>(num_tokens());
  const auto largest = [&]<class Stored>(Stored) {
    const auto* tokens = reinterpret_cast<const Stored*>(map_ + tokens_at_);
    Stored most = 0;
    for (std::size_t i = 0; i < num; ++i) most = std::max(most, tokens[i]);
    return static_cast<int64_t>(most);
  };
  if ((key_.token_bytes() == 2 ? largest(uint16_t{}) : largest(uint32_t{})) >=
      std::max<int64_t>(key_.num_vocabulary_tokens, 1))
    throw DataError("{}: holds tokens beyond the {} of the vocabulary; {}", path_.string(),
                    key_.num_vocabulary_tokens, kRemedy);
  drop_pages(tokens_at_, map_bytes_);
  is_verified_ = true;
}

void CacheFile::append(int64_t row, std::vector<int32_t>& out) const {
  verify();
  const auto first = begin_[static_cast<std::size_t>(row)], count = static_cast<uint64_t>(num_tokens(row));
  const std::size_t at = out.size();
  out.resize(at + count);
  const auto copy = [&]<class Stored>(Stored) {
    const auto* tokens = reinterpret_cast<const Stored*>(map_ + tokens_at_) + first;
    for (uint64_t i = 0; i < count; ++i) out[at + i] = static_cast<int32_t>(tokens[i]);
  };
  key_.token_bytes() == 2 ? copy(uint16_t{}) : copy(uint32_t{});
}

void CacheFile::forget(int64_t first_row, int64_t num_rows) const {
  const auto bytes = static_cast<std::size_t>(key_.token_bytes());
  drop_pages(tokens_at_ + begin_[static_cast<std::size_t>(first_row)] * bytes,
             tokens_at_ + begin_[static_cast<std::size_t>(first_row + num_rows)] * bytes);
}

// Whole pages only; the file's pages stay in the system's cache, they only leave this process.
void CacheFile::drop_pages(std::size_t first_byte, std::size_t end_byte) const {
  static const auto kPage = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t begin = (first_byte + kPage - 1) / kPage * kPage, end = end_byte / kPage * kPage;
  if (begin < end) ::madvise(map_ + begin, end - begin, MADV_DONTNEED);
}

}  // namespace scrna::data
