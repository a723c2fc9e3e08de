#include "tests/fuzz/fuzz_targets.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <limits>

#include <ATen/ops/arange.h>
#include <fcntl.h>
#include <unistd.h>

#include "lib/checkpoint/safetensors.h"
#include "lib/config/node.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/data/gene_aliases.h"
#include "lib/data/h5ad_writer.h"
#include "lib/data/obs_filter.h"
#include "lib/data/synthesize.h"
#include "lib/data/vocabulary.h"

namespace scrna::fuzz {
namespace {

void run_safetensors(std::string_view input) {
  static const ScratchFile file(".safetensors");
  file.write(input);
  static_cast<void>(checkpoint::load_safetensors(file.path()));
}
std::vector<std::string> seeds_safetensors() {
  const ScratchFile file(".safetensors");
  std::vector<std::string> seeds;
  for (const int64_t size : {0, 1, 6}) {
    checkpoint::Safetensors contents;
    contents.tensors.emplace_back("embedding.weight", at::arange(size).to(at::kFloat).reshape({size, 1}));
    if (size > 1) contents.tensors.emplace_back("blocks.0.norm.bias", at::arange(2).to(at::kBFloat16));
    contents.metadata = {{"format", "scrna-train"}, {"step", "12"}};
    checkpoint::save_safetensors(file.path(), contents);
    seeds.push_back(read_file(file.path()));
  }
  return seeds;
}

void run_vocabulary(std::string_view input) {
  const data::Vocabulary vocabulary = data::Vocabulary::parse(input, "vocabulary.tsv");
  // What was read is written as text that reads as the same.
  if (data::Vocabulary::parse(vocabulary.text(), "again").text() != vocabulary.text())
    throw InternalError("a vocabulary does not read back");
}
std::vector<std::string> seeds_vocabulary() {
  std::vector<data::Gene> genes = {{.id = "ENSG00000000003", .median = 1.4285715F, .cells = 3, .counts = 7},
                                   {.id = "ENSG00000000005", .median = 2.5e-4F, .cells = 1, .counts = 1},
                                   {.id = "TP53", .median = 1e20F, .cells = 9, .counts = 1e9}};
  return {data::Vocabulary(genes).text(), data::Vocabulary({genes[0]}).text()};
}

void run_gene_map(std::string_view input) { static_cast<void>(data::GeneAliases::parse(input, "map.tsv")); }
std::vector<std::string> seeds_gene_map() {
  return {"alias\tid\nP53\tTP53\nBCC7\tTP53\n", "alias\tid\r\nP53\tENSG00000141510.17\r\n", "alias\tid\n"};
}

void run_yaml(std::string_view input) {
  static_cast<void>(config::parse_text(std::string(input), "config.yaml"));
}
std::vector<std::string> seeds_yaml() {
  return {"data:\n  files: [a.h5ad, 'b.h5ad']\n  min_genes: 10\ntrain:\n  steps: 100 # few\n",
          "{data: {files: \"x\\ty\"}, model: {width: 64}}\n",
          "a: |\n  text\n  more\nb: >-\n  folded\nc: null\n", "{}"};
}

// Expressions are tried on the cells of a file with a column of each kind.
const data::AnnDataFile& file_of_the_filter() {
  static const ScratchFile file(".h5ad");
  static const data::AnnDataFile opened = [] {
    data::SynthesizeOptions options;
    options.cells = 40;
    options.genes = 30;
    options.median_genes = 5;
    data::synthesize(options, file.path());
    return data::AnnDataFile(file.path());
  }();
  return opened;
}
void run_filter(std::string_view input) {
  static_cast<void>(data::ObsFilter::parse(input).choose(file_of_the_filter()));
}
std::vector<std::string> seeds_filter() {
  std::vector<std::string> seeds = {"not (a == 1 and b in ['x', \"y\"]) or `c d` != true", "200 <= n_genes",
                                    "x not in [1, 2.5, -3e4]", "a == 'it\\'s'"};
  for (const std::string& column : file_of_the_filter().obs_columns()) {
    seeds.push_back(column + " == 'donor-1' or " + column + " in ['a', 'b']");
    seeds.push_back(column + " < 3 and not " + column);
  }
  return seeds;
}

}  // namespace

const std::vector<Target>& targets() {
  static const std::vector<Target> all = {{"h5ad_tables", run_h5ad_tables, seeds_h5ad_tables},
                                          {"sparse_arrays", run_sparse_arrays, seeds_sparse_arrays},
                                          {"cache", run_cache, seeds_cache},
                                          {"safetensors", run_safetensors, seeds_safetensors},
                                          {"vocabulary", run_vocabulary, seeds_vocabulary},
                                          {"gene_map", run_gene_map, seeds_gene_map},
                                          {"filter", run_filter, seeds_filter},
                                          {"yaml", run_yaml, seeds_yaml}};
  return all;
}

const Target* find_target(std::string_view name) {
  for (const Target& target : targets())
    if (target.name == name) return &target;
  return nullptr;
}

void expect_data_or_refusal(void (*read)(std::string_view), std::string_view input) {
  try {
    read(input);
  } catch (const Error& error) {
    if (error.code() == ExitCode::kBug) throw;
  }
}

ScratchFile::ScratchFile(std::string_view suffix) {
  static int num_files = 0;
  const char* folder = ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
  path_ = fmt::format("{}/scrna-fuzz-{}-{}{}", folder, ::getpid(), num_files++, suffix);
}
ScratchFile::~ScratchFile() { ::unlink(path_.c_str()); }

const std::string& ScratchFile::write(std::string_view bytes) const {
  const int file = ::open(path_.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  const bool is_written =
      file >= 0 && ::write(file, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size());
  if (file >= 0) ::close(file);
  if (!is_written) std::abort();  // no memory for the input: nothing was tested
  return path_;
}

int64_t Choices::number() {
  constexpr std::array<int64_t, 12> kBreaking = {-1,
                                                 0,
                                                 127,
                                                 128,
                                                 65536,
                                                 std::numeric_limits<int32_t>::max(),
                                                 int64_t{1} << 31,
                                                 int64_t{1} << 32,
                                                 1'000'000'000'000'000,
                                                 std::numeric_limits<int64_t>::max(),
                                                 std::numeric_limits<int64_t>::min(),
                                                 -2};
  const uint8_t first = byte();
  if (first < 224) return first % 16;
  return kBreaking[byte() % kBreaking.size()];
}

std::string Choices::text() {
  constexpr std::array<std::string_view, 10> kTexts = {"a",    "b",  "ENSG00000141510", "TP53", "",
                                                       "True", "12", "_index",          "nan",  "b"};
  const uint8_t first = byte();
  if (first < 200) return std::string(kTexts[first % kTexts.size()]);
  std::string text;
  for (uint64_t i = 0; i < first % 16U; ++i) text += static_cast<char>(byte());
  return text;
}

}  // namespace scrna::fuzz
