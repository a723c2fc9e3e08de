// The tokens of a corpus in a folder, so that a run begins at once and reads nothing twice: one file of
// tokens for every few thousand rows of a source, memory-mapped, two bytes a token where the vocabulary
// allows it. A cache belongs to its identity, which is everything that tokens follow from (vocabulary,
// tokenizer, choice of cells, the files themselves); of another one it is refused, naming what differs. What
// tokens do not follow from may change: split, order, masks. Files appear whole or not at all, so writing
// that was interrupted goes on where it was; each has a checksum, verified when it is first used. Counts are
// not kept: nothing that trains reads them. Format: lib/data/README.md. Rejected: one large file (cannot be
// continued), compression (inflating costs more than tokens that are read from disk), a checksum when opening
// (reads everything before the first batch).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lib/data/cell_source.h"

namespace scrna::data {

class Corpus;

/// Name and value of everything that tokens follow from.
using CacheIdentity = std::vector<std::pair<std::string, std::string>>;
/// Reads size and the first and last 64 kB of each source's file. Throws DataError when one cannot be read.
CacheIdentity cache_identity(const std::vector<CellSource>& sources, const std::string& vocabulary_hash,
                             const DataConfig& data, const TokenizerConfig& tokenizer);

/// What a corpus finds out in its pass over the files, as the cache keeps it.
struct CacheContents {
  std::string reports_json;                // of the sources
  std::string split;                       // settings that token_frequencies belong to
  std::vector<int64_t> token_frequencies;  // [V]
  int64_t longest_cell_tokens = 0;
};

struct CacheReport {
  int64_t cells = 0, tokens = 0;
  int64_t bytes = 0;         // of the folder
  int64_t source_bytes = 0;  // of the .h5ad files
  int64_t files_kept = 0;    // written by an earlier attempt
};

/// Tokenizes the usable cells of a corpus into `folder`, with the corpus' num_workers threads; each holds the
/// tokens of one file, at most 100 MB. What an interrupted attempt with the same identity left is kept.
/// Throws DataError: the folder holds a cache of another identity, a full disk ... The corpus must be whole
/// (data.scan_cells at least its cells).
CacheReport write_token_cache(const Corpus& corpus, const std::filesystem::path& folder,
                              const Progress& progress = {});

/// Thread-safe.
class TokenCache {
 public:
  /// `sources` and the size of the vocabulary are those of the identity. Throws DataError: no cache, not
  /// complete, of another identity, a file that is missing or too short, numbers that contradict each other.
  static std::shared_ptr<const TokenCache> open(const std::filesystem::path& folder,
                                                const CacheIdentity& expected,
                                                const std::vector<CellSource>& sources,
                                                int64_t vocabulary_size);
  ~TokenCache();

  [[nodiscard]] const CacheContents& contents() const;
  /// 0: the cell is left out.
  [[nodiscard]] int64_t num_tokens(int64_t source, int64_t row) const;
  /// Throws DataError when the file that holds the row does not have its checksum.
  void append(int64_t source, int64_t row, std::vector<int32_t>& out) const;
  /// These rows will not be needed soon: their pages need not stay in the process.
  void forget(int64_t source, int64_t first_row, int64_t num_rows) const;

 private:
  struct Impl;
  explicit TokenCache(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace scrna::data
