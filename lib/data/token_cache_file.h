// One file of a token cache: a header of 128 bytes, the places of the rows' tokens, the tokens. Internal to
// lib/data.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace scrna::data {

/// What a file must hold: SHA-256 of the identity in hexadecimal, and which rows.
struct CacheFileKey {
  std::string identity_hash;
  int64_t first_row = 0, num_rows = 0;
  int64_t num_vocabulary_tokens = 0;  // decides the bytes of a token
  [[nodiscard]] int64_t token_bytes() const { return num_vocabulary_tokens <= 65536 ? 2 : 4; }
};

/// begin [rows + 1]: places in `tokens`. Whole or absent. Throws DataError (disk full ...).
void write_cache_file(const std::filesystem::path& path, const CacheFileKey& key,
                      const std::vector<uint64_t>& begin, const std::vector<int32_t>& tokens);

/// A file mapped into memory.
class CacheFile {
 public:
  /// Throws DataError: cannot be opened, of another key, of another length than its header says, places that
  /// fall.
  CacheFile(const std::filesystem::path& path, const CacheFileKey& key);
  ~CacheFile();
  CacheFile(const CacheFile&) = delete;
  CacheFile& operator=(const CacheFile&) = delete;

  [[nodiscard]] int64_t num_tokens() const { return static_cast<int64_t>(begin_.back()); }
  /// `row` counts from the file's first.
  [[nodiscard]] int64_t num_tokens(int64_t row) const;
  void append(int64_t row, std::vector<int32_t>& out) const;
  void forget(int64_t first_row, int64_t num_rows) const;
  /// Once, before tokens are given away: checksum and range of all tokens. Throws DataError.
  void verify() const;

 private:
  [[nodiscard]] std::string_view bytes() const { return {map_, map_bytes_}; }
  void drop_pages(std::size_t first_byte, std::size_t end_byte) const;

  std::filesystem::path path_;
  CacheFileKey key_;
  char* map_ = nullptr;
  std::size_t map_bytes_ = 0;
  std::size_t tokens_at_ = 0;  // byte of the first token
  uint32_t checksum_ = 0;
  std::span<const uint64_t> begin_;  // in the map
  mutable std::mutex mutex_;         // of the first use
  mutable std::atomic<bool> is_verified_ = false;
};

}  // namespace scrna::data
