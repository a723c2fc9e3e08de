// A corpus read from a cache is the corpus that the cache was made from; every other one is refused.
#include "lib/data/token_cache.h"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/data/build_vocabulary.h"
#include "lib/data/loader.h"
#include "lib/data/synthesize.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace scrna::data {
namespace {

class TokenCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    SynthesizeOptions options;
    options.cells = 700;
    options.genes = 300;
    options.median_genes = 60;
    for (const char* name : {"a.h5ad", "b.h5ad"}) {
      synthesize(options, folder_ / name);
      options.seed = 5;
      options.cells = 90;
    }
    config_.files = {(folder_ / "a.h5ad").string(), (folder_ / "b.h5ad").string()};
    config_.min_genes = 40;  // some cells are left out
    tokenizer_.max_tokens = 64;
  }

  [[nodiscard]] Corpus open(const DataConfig& config, const TokenizerConfig& tokenizer,
                            int64_t min_cells = 1) const {
    std::vector<CellSource> sources = open_sources(config);
    Vocabulary vocabulary = build_vocabulary(sources, min_cells);
    return {std::move(sources), std::move(vocabulary), config, tokenizer};
  }
  [[nodiscard]] Corpus open() const { return open(config_, tokenizer_); }
  [[nodiscard]] DataConfig cached() const {
    DataConfig config = config_;
    config.cache = cache_.string();
    return config;
  }
  [[nodiscard]] std::string problem(const std::function<void(DataConfig&, TokenizerConfig&)>& change,
                                    int64_t min_cells = 1) const {
    DataConfig config = cached();
    TokenizerConfig tokenizer = tokenizer_;
    change(config, tokenizer);
    return test::message_of<DataError>([&] { static_cast<void>(open(config, tokenizer, min_cells)); });
  }
  [[nodiscard]] std::vector<std::filesystem::path> token_files() const {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(cache_))
      if (entry.path().extension() == ".bin") files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
  }

  test::TempDir folder_;
  std::filesystem::path cache_ = folder_ / "cache";
  DataConfig config_;
  TokenizerConfig tokenizer_;
};

std::vector<PackedMicroBatch> batches_of(const Corpus& corpus, int64_t steps) {
  TrainLoader loader(corpus, loader_options(corpus.config(), MaskingConfig{}, 3, 64));
  std::vector<PackedMicroBatch> packs;
  for (int64_t step = 0; step < steps; ++step)
    for (PackedMicroBatch& pack : loader.next().micro_batches) packs.push_back(std::move(pack));
  HeldoutLoader heldout(corpus, loader_options(corpus.config(), MaskingConfig{}, 3, 64));
  for (PackedMicroBatch pack; heldout.next(pack);) packs.push_back(pack);
  return packs;
}

void expect_same(const Corpus& a, const Corpus& b) {
  EXPECT_EQ(a.num_training_cells(), b.num_training_cells());
  EXPECT_EQ(a.num_heldout_cells(), b.num_heldout_cells());
  EXPECT_EQ(a.token_frequencies(), b.token_frequencies());
  EXPECT_EQ(a.longest_cell_tokens(), b.longest_cell_tokens());
  EXPECT_EQ(a.total_report().sum.counts, b.total_report().sum.counts);
  EXPECT_EQ(a.total_report().sum.kept_counts, b.total_report().sum.kept_counts);
  const auto x = batches_of(a, 30), y = batches_of(b, 30);  // more than two epochs
  ASSERT_EQ(x.size(), y.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(x[i].tokens, y[i].tokens);
    ASSERT_EQ(x[i].masked_targets, y[i].masked_targets);
    ASSERT_EQ(x[i].cell_ids, y[i].cell_ids);
    ASSERT_EQ(x[i].cu_seqlens, y[i].cu_seqlens);
  }
}

TEST_F(TokenCacheTest, GivesTheSameBatchesAlsoWithAnotherSplit) {
  const Corpus corpus = open();
  EXPECT_LT(corpus.num_training_cells() + corpus.num_heldout_cells(), 780) << "some cells must be left out";
  const CacheReport report = write_token_cache(corpus, cache_);
  EXPECT_EQ(report.cells, corpus.num_training_cells() + corpus.num_heldout_cells());
  EXPECT_EQ(report.files_kept, 0);
  expect_same(corpus, open(cached(), tokenizer_));
  DataConfig other = config_;
  other.heldout_seed = 9;
  other.heldout_fraction = 0.3;
  DataConfig other_cached = other;
  other_cached.cache = cache_.string();
  expect_same(open(other, tokenizer_), open(other_cached, tokenizer_));
}

// A corpus that is not read whole has the same order with and without a cache: cells without tokens keep
// their place.
TEST_F(TokenCacheTest, GivesTheSameBatchesWhereCellsAreKnownOnlyWhenRead) {
  config_.min_gene_hit_rate = 0;
  config_.min_genes = 10;
  constexpr int64_t kMinCells = 400;  // a vocabulary that knows few of the genes
  write_token_cache(open(config_, tokenizer_, kMinCells), cache_);
  config_.scan_cells = 0;
  const Corpus from_files = open(config_, tokenizer_, kMinCells),
               from_cache = open(cached(), tokenizer_, kMinCells);
  ASSERT_FALSE(from_files.is_whole());
  EXPECT_GT(from_cache.reports()[0].unusable_cells, 50);
  EXPECT_EQ(from_files.num_training_cells(), from_cache.num_training_cells());
  const auto x = batches_of(from_files, 30), y = batches_of(from_cache, 30);
  ASSERT_EQ(x.size(), y.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(x[i].tokens, y[i].tokens);
    ASSERT_EQ(x[i].masked_targets, y[i].masked_targets);
    ASSERT_EQ(x[i].cell_ids, y[i].cell_ids);
  }
}

TEST_F(TokenCacheTest, SamplingAndFilterAreTheSameWithACache) {
  config_.filter = "donor != 'donor-0'";
  write_token_cache(open(), cache_);
  config_.sampling_column = "donor";
  config_.sampling_temperature = 4;
  expect_same(open(), open(cached(), tokenizer_));
}

TEST_F(TokenCacheTest, WithClsToo) {
  tokenizer_.add_cls = true;
  const Corpus corpus = open();
  write_token_cache(corpus, cache_);
  expect_same(corpus, open(cached(), tokenizer_));
}

TEST_F(TokenCacheTest, OtherSettingsAndFilesAreRefusedByName) {
  write_token_cache(open(), cache_);
  EXPECT_EQ(problem([](DataConfig&, TokenizerConfig&) {}), "nothing was thrown");
  EXPECT_CONTAINS(problem([](DataConfig&, TokenizerConfig&) {}, 30), "made with another vocabulary");
  EXPECT_CONTAINS(problem([](DataConfig&, TokenizerConfig& t) { t.max_tokens = 32; }),
                  "another tokenizer.max_tokens: '64', now it is '32'");
  EXPECT_CONTAINS(problem([](DataConfig&, TokenizerConfig& t) { t.add_cls = true; }),
                  "another tokenizer.add_cls");
  EXPECT_CONTAINS(problem([](DataConfig& d, TokenizerConfig&) { d.min_genes = 41; }),
                  "another data.min_genes");
  DataConfig filtered = cached();
  filtered.filter = "donor != 'donor-0'";
  std::vector<CellSource> sources = open_sources(filtered);
  EXPECT_CONTAINS(test::message_of<DataError>([&] {
                    Corpus(sources, Vocabulary::load(cache_ / "vocabulary.tsv"), filtered, tokenizer_);
                  }),
                  "another data.filter: '', now it is 'donor != ");
  DataConfig fewer = cached();
  fewer.files.pop_back();
  EXPECT_CONTAINS(test::message_of<DataError>([&] {
                    Corpus(open_sources(fewer), Vocabulary::load(cache_ / "vocabulary.tsv"), fewer,
                           tokenizer_);
                  }),
                  "another number of files");
  SynthesizeOptions other;
  other.cells = 90;
  other.genes = 300;
  other.median_genes = 60;
  other.seed = 77;
  synthesize(other, folder_ / "b.h5ad");
  EXPECT_CONTAINS(test::message_of<DataError>([&] {
                    Corpus(open_sources(cached()), Vocabulary::load(cache_ / "vocabulary.tsv"), cached(),
                           tokenizer_);
                  }),
                  "another file 1");
}

TEST_F(TokenCacheTest, AnInterruptedAttemptGoesOnAndDamageIsWrittenAgain) {
  const Corpus corpus = open();
  write_token_cache(corpus, cache_);
  const auto files = token_files();
  ASSERT_EQ(files.size(), 2U);
  std::filesystem::remove(cache_ / "cache.json");
  EXPECT_CONTAINS(problem([](DataConfig&, TokenizerConfig&) {}), "holds no finished cache");
  std::filesystem::remove(files[1]);
  EXPECT_EQ(write_token_cache(corpus, cache_).files_kept, 1);
  std::string bytes = read_file(files[0]);
  bytes[bytes.size() - 5] = static_cast<char>(bytes[bytes.size() - 5] ^ 1);
  write_file_atomically(files[0], bytes);
  EXPECT_EQ(write_token_cache(corpus, cache_).files_kept, 1) << "the damaged file is written again";
  expect_same(corpus, open(cached(), tokenizer_));
}

TEST_F(TokenCacheTest, DamageIsADataErrorWhateverByteItHits) {
  write_token_cache(open(), cache_);
  const auto path = token_files()[0];
  const std::string good = read_file(path);
  const auto problem_with = [&](const std::string& bytes) {
    write_file_atomically(path, bytes);
    return test::message_of<DataError>([&] {
      const Corpus corpus(open_sources(cached()), Vocabulary::load(cache_ / "vocabulary.tsv"), cached(),
                          tokenizer_);
      batches_of(corpus, 12);
    });
  };
  EXPECT_EQ(problem_with(good), "nothing was thrown");
  EXPECT_CONTAINS(problem_with(good.substr(0, good.size() - 2)), "contradict each other");
  EXPECT_CONTAINS(problem_with(good.substr(0, 100)), "too few for its");
  EXPECT_CONTAINS(problem_with(""), "too few for its");
  std::filesystem::remove(path);
  for (std::size_t at = 0; at < good.size(); at += at < 104 ? 1 : good.size() / 40) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x41);
    EXPECT_CONTAINS(problem_with(bytes), path.filename().string()) << "byte " << at;
  }
}

TEST_F(TokenCacheTest, ADamagedManifestIsADataError) {
  write_token_cache(open(), cache_);
  const std::string good = read_file(cache_ / "cache.json");
  const auto with = [&](const std::string& what, const std::string& instead) {
    std::string text = good;
    const std::size_t at = text.find(what);
    EXPECT_NE(at, std::string::npos) << what;
    write_file_atomically(cache_ / "cache.json", text.replace(at, what.size(), instead));
    return problem([](DataConfig&, TokenizerConfig&) {});
  };
  EXPECT_CONTAINS(with("\"cells\":700", "\"cells\":900000000000000"), "contradict each other");
  EXPECT_CONTAINS(with("\"token_frequencies\":[0", "\"token_frequencies\":[0,0"), "contradict each other");
  EXPECT_CONTAINS(with("\"token_frequencies\":[0", "\"token_frequencies\":[-1"), "contradict each other");
  EXPECT_CONTAINS(with("\"longest_cell_tokens\":", "\"longest_cell_tokens\":9"), "contradict each other");
  EXPECT_CONTAINS(with("\"reports\":[{", "\"reports\":[7,{"), "cache.json: is damaged");
  EXPECT_CONTAINS(with("\"split\":", "\"spilt\":"), "cache.json: is damaged");
  EXPECT_CONTAINS(with("{", "["), "cache.json: is damaged");
  EXPECT_EQ(with("{", "{"), "nothing was thrown");
}

TEST_F(TokenCacheTest, AFolderOfAnotherCacheIsNotOverwritten) {
  write_token_cache(open(), cache_);
  tokenizer_.max_tokens = 32;
  const Corpus other = open();
  EXPECT_CONTAINS(test::message_of<DataError>([&] { write_token_cache(other, cache_); }),
                  "tokenizer.max_tokens");
  tokenizer_.max_tokens = 64;
  EXPECT_EQ(problem([](DataConfig&, TokenizerConfig&) {}), "nothing was thrown");
}

}  // namespace
}  // namespace scrna::data
