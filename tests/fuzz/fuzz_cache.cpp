// The folder of a token cache: its token files, with their checksums made right so that what lies behind them
// is reached, and its cache.json. Every row is taken out of a cache that opens.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <memory>

#include <libdeflate.h>
#include <unistd.h>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/data/build_vocabulary.h"
#include "lib/data/corpus.h"
#include "lib/data/synthesize.h"
#include "lib/data/token_cache.h"
#include "lib/data/token_cache_file.h"
#include "tests/fuzz/fuzz_targets.h"

namespace scrna::fuzz {
namespace {

constexpr std::size_t kHeaderBytes = 128, kChecksumAt = 100;  // lib/data/README.md
constexpr int64_t kRows = 6;

// A cache of a few cells in a folder of this process, with its sources.
struct Folder {
  Folder() {
    path = ScratchFile("-folder").path();
    std::filesystem::create_directories(path);
    data::SynthesizeOptions options;
    options.cells = 30;
    options.genes = 25;
    options.median_genes = 6;
    data::synthesize(options, path / "cells.h5ad");
    config.files = {(path / "cells.h5ad").string()};
    config.min_genes = 1;
    sources = data::open_sources(config);
    vocabulary = std::make_unique<data::Vocabulary>(data::build_vocabulary(sources, 1));
    const data::Corpus corpus(sources, *vocabulary, config, tokenizer);
    data::write_token_cache(corpus, path / "cache");
    identity = data::cache_identity(sources, vocabulary->hash(), config, tokenizer);
    manifest = read_file(path / "cache" / "cache.json");
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::filesystem::path path;
  data::DataConfig config;
  data::TokenizerConfig tokenizer{.max_tokens = 16};
  std::vector<data::CellSource> sources;
  std::unique_ptr<data::Vocabulary> vocabulary;
  data::CacheIdentity identity;
  std::string manifest;
};
const Folder& folder() {
  static const Folder only;
  return only;
}

data::CacheFileKey key_of_file() {
  return {
      .identity_hash = std::string(64, 'a'), .first_row = 0, .num_rows = kRows, .num_vocabulary_tokens = 40};
}

void run_file(std::string_view input, bool has_right_checksum) {
  static const ScratchFile file(".bin");
  std::string bytes(input);
  if (has_right_checksum && bytes.size() > kHeaderBytes) {
    const uint32_t checksum = libdeflate_crc32(0, bytes.data() + kHeaderBytes, bytes.size() - kHeaderBytes);
    std::memcpy(bytes.data() + kChecksumAt, &checksum, sizeof(checksum));
  }
  file.write(bytes);
  const data::CacheFile cache(file.path(), key_of_file());
  std::vector<int32_t> tokens;
  for (int64_t row = 0; row < kRows; ++row) {
    const auto before = std::ssize(tokens);
    cache.append(row, tokens);
    if (std::ssize(tokens) - before != cache.num_tokens(row)) throw InternalError("a row of another length");
  }
  for (const int32_t token : tokens)
    if (token < 0 || token >= 40) throw InternalError("a token beyond the vocabulary");
  cache.forget(0, kRows);
}

void run_manifest(std::string_view input) {
  const Folder& good = folder();
  static const std::string path = (good.path / "cache" / "cache.json").string();
  static const ScratchFile text(".json");
  text.write(input);
  std::filesystem::rename(text.path(), path);
  const auto cache =
      data::TokenCache::open(good.path / "cache", good.identity, good.sources, good.vocabulary->size());
  std::vector<int32_t> tokens;
  for (int64_t row = 0; row < good.sources[0].matrix->num_cells(); ++row) cache->append(0, row, tokens);
  data::DataConfig config = good.config;
  config.cache = (good.path / "cache").string();
  const data::Corpus corpus(good.sources, *good.vocabulary, config, good.tokenizer);
}

}  // namespace

// The first byte: 0 a token file, 1 one whose checksum is made right, else cache.json.
void run_cache(std::string_view input) {
  if (input.empty()) return;
  const int kind = static_cast<uint8_t>(input[0]) % 3;
  if (kind == 2) return run_manifest(input.substr(1));
  run_file(input.substr(1), kind == 1);
}

std::vector<std::string> seeds_cache() {
  const ScratchFile file(".bin");
  data::write_cache_file(file.path(), key_of_file(), {0, 3, 3, 5, 6, 6, 9}, {4, 5, 6, 39, 4, 8, 4, 6, 7});
  const std::string bytes = read_file(file.path());
  return {std::string(1, '\0') + bytes, std::string(1, '\1') + bytes,
          std::string(1, '\2') + folder().manifest};
}

}  // namespace scrna::fuzz
