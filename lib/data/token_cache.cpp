#include "lib/data/token_cache.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <fstream>
#include <mutex>
#include <thread>

#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/log.h"
#include "lib/data/corpus.h"
#include "lib/data/corpus_reports.h"
#include "lib/data/token_cache_file.h"

namespace scrna::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kManifest = "cache.json";
constexpr const char* kUnfinished = "unfinished.json";  // the identity, until the manifest is there
constexpr int64_t kTokensPerFile = int64_t{1} << 23;    // at most
constexpr int64_t kRowsPerRead = 128;

int64_t rows_per_file(int64_t max_tokens) {
  return std::clamp<int64_t>(kTokensPerFile / max_tokens, 128, 65536);
}

std::string ends_of(const std::filesystem::path& path) {
  constexpr std::size_t kEnd = 65536;
  std::ifstream file(path, std::ios::binary);
  std::error_code problem;
  const auto size = static_cast<std::size_t>(std::filesystem::file_size(path, problem));
  std::string bytes(problem ? 0 : std::min(size, 2 * kEnd), '\0');
  const std::size_t head = std::min(bytes.size(), kEnd);
  file.read(bytes.data(), static_cast<std::streamsize>(head));
  file.seekg(static_cast<std::streamoff>(size - (bytes.size() - head)));
  file.read(bytes.data() + head, static_cast<std::streamsize>(bytes.size() - head));
  if (problem || !file) throw DataError("{}: cannot be read", path.string());
  return fmt::format("{} bytes, {}", size, sha256(bytes).substr(0, 16));
}

std::string hash_of(const CacheIdentity& identity) {
  std::string text;
  for (const auto& [name, value] : identity) text += fmt::format("{}:{}={}\n", name.size(), name, value);
  return sha256(text);
}

Json json_of(const CacheIdentity& identity) {
  Json json = Json::array();
  for (const auto& [name, value] : identity) json.push_back({name, value});
  return json;
}

// Throws DataError that names the first difference.
void check_identity(const Json& found, const CacheIdentity& expected, const std::filesystem::path& folder) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const auto& [name, value] = expected[i];
    std::string other = "nothing";
    if (i < found.size() && found[i].is_array() && found[i].size() == 2 && found[i][0] == name &&
        found[i][1].is_string())
      other = found[i][1].get<std::string>();
    if (other == value && (i + 1 < expected.size() || found.size() == expected.size())) continue;
    throw DataError(
        "{}: is a cache made with another {}: '{}', now it is '{}'. Use the settings and files it was made "
        "with (its "
        "vocabulary.tsv as data.vocabulary), or make another one: scrna-train cache",
        folder.string(), found.size() > expected.size() && other == value ? "number of files" : name, other,
        value);
  }
}

int64_t max_tokens_of(const CacheIdentity& identity) {
  for (const auto& [name, value] : identity)
    if (name == "tokenizer.max_tokens") return std::stoll(value);
  throw InternalError("an identity without tokenizer.max_tokens");
}

Json read_json(const std::filesystem::path& path) {
  Json json = Json::parse(read_file(path), nullptr, false);
  if (!json.is_object() || !json.contains("identity") || !json["identity"].is_array())
    throw DataError("{}: is damaged; remove the folder and make the cache again: scrna-train cache",
                    path.string());
  return json;
}

struct FilePlan {
  int64_t source = 0;
  std::filesystem::path path;
  CacheFileKey key;
};

std::vector<FilePlan> plan_files(const std::filesystem::path& folder,
                                 const std::vector<int64_t>& rows_of_source, int64_t rows_per_cache_file,
                                 const std::string& identity_hash, int64_t vocabulary) {
  std::vector<FilePlan> files;
  for (std::size_t source = 0; source < rows_of_source.size(); ++source) {
    for (int64_t first = 0; first < rows_of_source[source]; first += rows_per_cache_file) {
      files.push_back({.source = static_cast<int64_t>(source),
                       .path = folder / fmt::format("tokens-{:05}-{:012}.bin", source, first),
                       .key = {.identity_hash = identity_hash,
                               .first_row = first,
                               .num_rows = std::min(rows_per_cache_file, rows_of_source[source] - first),
                               .num_vocabulary_tokens = vocabulary}});
    }
  }
  return files;
}

// True when an earlier attempt wrote the file and it is as it was.
bool is_written(const FilePlan& plan) {
  std::error_code ignored;
  if (!std::filesystem::exists(plan.path, ignored)) return false;
  try {
    CacheFile(plan.path, plan.key).verify();
    return true;
  } catch (const DataError& problem) {
    log::warning("[cache] {}; it is written again", problem.what());
    return false;
  }
}

class Writer {
 public:
  Writer(const Corpus& corpus, std::vector<FilePlan> files, const Progress& progress)
      : corpus_(corpus), files_(std::move(files)), progress_(progress) {
    for (const FilePlan& file : files_) num_rows_ += file.key.num_rows;
  }

  // Returns how many files were there already.
  int64_t run() {
    {
      std::vector<std::jthread> threads;
      for (int64_t i = 1; i < corpus_.config().num_workers; ++i)
        threads.emplace_back([this] { work(false); });
      work(true);
    }
    if (problem_) std::rethrow_exception(problem_);
    return num_kept_;
  }

 private:
  void work(bool reports_progress) {
    try {
      Tokenizer tokenizer(corpus_.vocabulary(), corpus_.tokenizer_config());
      CellBlock block;
      std::vector<uint64_t> begin;
      std::vector<int32_t> tokens;
      for (std::size_t i = next_++; i < files_.size(); i = next_++) {
        if (is_written(files_[i])) {
          ++num_kept_;
        } else {
          tokenize(files_[i], tokenizer, block, begin, tokens);
          write_cache_file(files_[i].path, files_[i].key, begin, tokens);
        }
        const int64_t done = done_rows_ += files_[i].key.num_rows;
        if (reports_progress && progress_) progress_("writing the cache", done, num_rows_);
      }
    } catch (...) {
      const std::scoped_lock lock(mutex_);
      if (!problem_) problem_ = std::current_exception();
      next_ = files_.size();
    }
  }

  void tokenize(const FilePlan& file, Tokenizer& tokenizer, CellBlock& block, std::vector<uint64_t>& begin,
                std::vector<int32_t>& tokens) const {
    const auto source = static_cast<int32_t>(file.source);
    begin.assign(1, 0);
    tokens.clear();
    const int64_t end = file.key.first_row + file.key.num_rows;
    for (int64_t first = file.key.first_row; first < end; first += kRowsPerRead) {
      const int64_t count = std::min(kRowsPerRead, end - first);
      bool is_read = false;
      for (int64_t row = first; row < first + count; ++row) {
        if (corpus_.role(source, row) != CellRole::kLeftOut) {
          if (!is_read) corpus_.source(source).matrix->read_into(first, count, block);
          is_read = true;
          const auto at = static_cast<std::size_t>(block.indptr[static_cast<std::size_t>(row - first)]);
          const auto size =
              static_cast<std::size_t>(block.indptr[static_cast<std::size_t>(row - first) + 1]) - at;
          tokenizer.append(corpus_.gene_map(source), std::span(block.genes).subspan(at, size),
                           std::span(block.values).subspan(at, size), tokens);
          corpus_.check_unchanged(source, static_cast<int64_t>(tokens.size() - begin.back()));
        }
        begin.push_back(tokens.size());
      }
    }
  }

  const Corpus& corpus_;
  const std::vector<FilePlan> files_;
  const Progress& progress_;
  std::atomic<std::size_t> next_ = 0;
  std::atomic<int64_t> done_rows_ = 0, num_kept_ = 0;
  int64_t num_rows_ = 0;
  std::mutex mutex_;
  std::exception_ptr problem_;
};

}  // namespace

CacheIdentity cache_identity(const std::vector<CellSource>& sources, const std::string& vocabulary_hash,
                             const DataConfig& data, const TokenizerConfig& tokenizer) {
  CacheIdentity identity = {
      {"format", "1"},
      {"vocabulary (SHA-256)", vocabulary_hash},
      {"tokenizer.max_tokens", std::to_string(tokenizer.max_tokens)},
      {"tokenizer.add_cls", tokenizer.add_cls ? "true" : "false"},
      {"data.matrix", data.matrix},
      {"data.genome", data.genome},
      {"data.gene_column", data.gene_column},
      {"data.gene_map (SHA-256)", data.gene_map.empty() ? "" : sha256_of_file(data.gene_map)},
      {"data.filter", data.filter},
      {"data.allow_normalized", data.allow_normalized ? "true" : "false"},
      {"data.min_genes", std::to_string(data.min_genes)},
  };
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const CellSource& source = sources[i];
    const std::filesystem::path path = source.name;
    identity.emplace_back(fmt::format("file {}", i),
                          fmt::format("{}, {}, {} x {}, {}", path.filename().string(), source.matrix->name(),
                                      source.matrix->num_cells(), source.matrix->num_genes(), ends_of(path)));
  }
  return identity;
}

CacheReport write_token_cache(const Corpus& corpus, const std::filesystem::path& folder,
                              const Progress& progress) {
  SCRNA_CHECK(corpus.is_whole(), "a cache of a corpus that was not read whole");
  std::vector<CellSource> sources;
  std::vector<int64_t> rows;
  for (int32_t i = 0; i < corpus.num_sources(); ++i) {
    sources.push_back(corpus.source(i));
    rows.push_back(sources.back().matrix->num_cells());
  }
  const CacheIdentity identity =
      cache_identity(sources, corpus.vocabulary().hash(), corpus.config(), corpus.tokenizer_config());
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  if (problem) throw DataError("{}: the folder cannot be made: {}", folder.string(), problem.message());
  for (const char* name : {kManifest, kUnfinished}) {
    if (std::filesystem::exists(folder / name, problem))
      check_identity(read_json(folder / name)["identity"], identity, folder);
  }
  write_file_atomically(folder / kUnfinished, Json{{"identity", json_of(identity)}}.dump(1) + "\n");
  const std::vector<FilePlan> files =
      plan_files(folder, rows, rows_per_file(corpus.tokenizer_config().max_tokens), hash_of(identity),
                 corpus.vocabulary().size());
  CacheReport report;
  report.files_kept = Writer(corpus, files, progress).run();
  corpus.vocabulary().save(folder / "vocabulary.tsv");
  const Json manifest = {{"identity", json_of(identity)},
                         {"split", corpus.split_text()},
                         {"longest_cell_tokens", corpus.longest_cell_tokens()},
                         {"token_frequencies", corpus.token_frequencies()},
                         {"reports", Json::parse(reports_to_json(corpus.reports()))}};
  write_file_atomically(folder / kManifest, manifest.dump() + "\n");
  std::filesystem::remove(folder / kUnfinished, problem);
  for (const FilePlan& plan : files) {
    const CacheFile file(plan.path, plan.key);
    report.tokens += file.num_tokens();
    for (int64_t row = 0; row < plan.key.num_rows; ++row) report.cells += file.num_tokens(row) > 0 ? 1 : 0;
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    report.bytes += static_cast<int64_t>(entry.file_size());
  for (const CellSource& source : sources)
    report.source_bytes += static_cast<int64_t>(std::filesystem::file_size(source.name));
  return report;
}

struct TokenCache::Impl {
  CacheContents contents;
  int64_t rows_per_file = 0;
  std::vector<std::vector<std::unique_ptr<CacheFile>>> files;  // [sources][files]

  [[nodiscard]] const CacheFile& file_of(int64_t source, int64_t row) const {
    return *files[static_cast<std::size_t>(source)][static_cast<std::size_t>(row / rows_per_file)];
  }
};

std::shared_ptr<const TokenCache> TokenCache::open(const std::filesystem::path& folder,
                                                   const CacheIdentity& expected,
                                                   const std::vector<CellSource>& sources,
                                                   int64_t vocabulary_size) {
  std::error_code problem;
  if (!std::filesystem::exists(folder / kManifest, problem)) {
    throw DataError(
        "{}: holds no finished cache (cache.json); make it, or finish it, with: scrna-train cache",
        folder.string());
  }
  const Json json = read_json(folder / kManifest);
  check_identity(json["identity"], expected, folder);
  auto impl = std::make_unique<Impl>();
  CacheContents& contents = impl->contents;
  const auto is_consistent = [&] {
    contents = {.reports_json = json.at("reports").dump(),
                .split = json.at("split").get<std::string>(),
                .token_frequencies = json.at("token_frequencies").get<std::vector<int64_t>>(),
                .longest_cell_tokens = json.at("longest_cell_tokens").get<int64_t>()};
    const std::vector<SourceReport> reports = reports_from_json(contents.reports_json);
    const std::vector<int64_t>& frequencies = contents.token_frequencies;
    return std::equal(reports.begin(), reports.end(), sources.begin(), sources.end(),
                      [](const SourceReport& report, const CellSource& source) {
                        return report.cells == source.matrix->num_cells();
                      }) &&
           std::ssize(frequencies) == vocabulary_size &&
           std::all_of(frequencies.begin(), frequencies.end(), [](int64_t count) { return count >= 0; }) &&
           contents.longest_cell_tokens >= 0 && contents.longest_cell_tokens <= max_tokens_of(expected);
  };
  try {
    if (!is_consistent()) throw DataError("its numbers contradict each other");
  } catch (const std::exception& damage) {  // also of the JSON library
    throw DataError("{}: is damaged ({}); remove it and make the cache again: scrna-train cache",
                    (folder / kManifest).string(), damage.what());
  }
  std::vector<int64_t> rows;
  for (const CellSource& source : sources) rows.push_back(source.matrix->num_cells());
  impl->rows_per_file = data::rows_per_file(max_tokens_of(expected));
  impl->files.resize(rows.size());
  for (const FilePlan& plan :
       plan_files(folder, rows, impl->rows_per_file, hash_of(expected), vocabulary_size))
    impl->files[static_cast<std::size_t>(plan.source)].push_back(
        std::make_unique<CacheFile>(plan.path, plan.key));
  return std::shared_ptr<const TokenCache>(new TokenCache(std::move(impl)));
}

TokenCache::TokenCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TokenCache::~TokenCache() = default;
const CacheContents& TokenCache::contents() const { return impl_->contents; }

int64_t TokenCache::num_tokens(int64_t source, int64_t row) const {
  return impl_->file_of(source, row).num_tokens(row % impl_->rows_per_file);
}
void TokenCache::append(int64_t source, int64_t row, std::vector<int32_t>& out) const {
  impl_->file_of(source, row).append(row % impl_->rows_per_file, out);
}
void TokenCache::forget(int64_t source, int64_t first_row, int64_t num_rows) const {
  while (num_rows > 0) {
    const int64_t in_file = first_row % impl_->rows_per_file;
    const int64_t part = std::min(num_rows, impl_->rows_per_file - in_file);
    impl_->file_of(source, first_row).forget(in_file, part);
    first_row += part;
    num_rows -= part;
  }
}

}  // namespace scrna::data
