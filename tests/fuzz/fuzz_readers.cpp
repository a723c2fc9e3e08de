// Damages input files at random and reads each in a child process, so that a crash is counted and kept
// instead of ending the search. For long runs under the sanitizers (build/asan); short ones with fixed seeds
// run in every test (tests/data/mutation_test.cpp, tests/checkpoint/safetensors_test.cpp).
//   fuzz_readers h5ad|safetensors|vocabulary|gene_map|filter|yaml SECONDS SEED CRASH_FOLDER FILE...
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/checkpoint/safetensors.h"
#include "lib/config/node.h"
#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/log.h"
#include "lib/data/build_vocabulary.h"
#include "lib/data/gene_aliases.h"
#include "lib/data/loader.h"
#include "lib/data/obs_filter.h"

namespace {

namespace fs = std::filesystem;
using Random = std::mt19937_64;

constexpr int kRead = 0, kRefused = 1, kOurMistake = 2, kOtherException = 3;  // exit codes of a child
constexpr unsigned kSecondsPerFile = 20;

void read_h5ad(const fs::path& path) {
  using namespace scrna::data;
  const AnnDataFile file(path);
  for (const std::string& column : file.obs_columns()) {
    try {
      static_cast<void>(file.obs_categories(column));
    } catch (const scrna::DataError&) {
    }
  }
  DataConfig config;
  config.files = {path.string()};
  config.num_workers = 1;
  config.allow_normalized = true;
  config.min_gene_hit_rate = 0;
  std::vector<CellSource> sources = open_sources(config);
  Vocabulary vocabulary = build_vocabulary(sources, 1);
  const Corpus corpus(std::move(sources), std::move(vocabulary), config, {});
  TrainLoader loader(corpus, loader_options(config, {}, 1, 16));
  loader.next();
}

void read(const std::string& kind, const fs::path& path) {
  if (kind == "h5ad") return read_h5ad(path);
  if (kind == "safetensors") return static_cast<void>(scrna::checkpoint::load_safetensors(path));
  if (kind == "vocabulary") return static_cast<void>(scrna::data::Vocabulary::load(path));
  if (kind == "gene_map") return static_cast<void>(scrna::data::GeneAliases::load(path));
  if (kind == "filter") return static_cast<void>(scrna::data::ObsFilter::parse(scrna::read_file(path)));
  if (kind == "yaml") return static_cast<void>(scrna::config::parse_file(path));
  std::cerr << "unknown kind '" << kind << "'\n";
  std::exit(64);
}

std::string damage(std::string bytes, Random& random) {
  const uint64_t num_edits = 1 + random() % 8;
  for (uint64_t edit = 0; edit < num_edits && !bytes.empty(); ++edit) {
    const std::size_t at = random() % bytes.size();
    switch (random() % 8) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8));
        break;
      case 1:
        bytes[at] = random() % 2 == 0 ? '\xff' : '\0';
        break;
      case 2:  // a length or an address
        for (std::size_t i = 0; i < 1 + random() % 8 && at + i < bytes.size(); ++i) bytes[at + i] = '\xff';
        break;
      case 3: {  // a piece of the file over another
        const std::size_t from = random() % bytes.size(),
                          count = std::min<std::size_t>(1 + random() % 64, bytes.size() - std::max(at, from));
        bytes.replace(at, count, bytes.substr(from, count));
        break;
      }
      case 4:
        if (random() % 8 == 0) bytes.resize(at);
        break;
      default:
        bytes[at] = static_cast<char>(random());
    }
  }
  return bytes;
}

// The child's exit code, or minus the signal that ended it.
int read_in_child(const std::string& kind, const fs::path& path) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(kSecondsPerFile);
    try {
      read(kind, path);
      ::_exit(kRead);
    } catch (const scrna::Error& error) {
      ::_exit(error.code() == scrna::ExitCode::kBug ? kOurMistake : kRefused);
    } catch (...) {
      ::_exit(kOtherException);
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::cerr << "usage: fuzz_readers h5ad|safetensors|vocabulary|gene_map|filter|yaml SECONDS SEED CRASH_FOLDER FILE...\n";
    return 2;
  }
  scrna::log::set_console_level(scrna::log::Level::kError);
  const std::string kind = argv[1];
  const double seconds = std::atof(argv[2]);
  Random random(std::strtoull(argv[3], nullptr, 10));
  const fs::path crashes = argv[4];
  fs::create_directories(crashes);
  std::vector<std::string> seeds;
  for (int i = 5; i < argc; ++i) seeds.push_back(scrna::read_file(argv[i]));
  std::map<int, int64_t> outcomes;
  int64_t num_runs = 0;
  const auto begin = std::chrono::steady_clock::now();
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() < seconds) {
    const fs::path path = crashes / "current";
    std::ofstream(path, std::ios::binary) << damage(seeds[random() % seeds.size()], random);
    const int outcome = read_in_child(kind, path);
    if (outcome != kRead && outcome != kRefused && outcomes[outcome] < 20)
      fs::copy_file(path, crashes / fmt::format("outcome{}-run{}", outcome, num_runs),
                    fs::copy_options::overwrite_existing);
    ++outcomes[outcome];
    ++num_runs;
  }
  std::cout << kind << ": " << num_runs << " files";
  for (const auto& [outcome, count] : outcomes) {
    std::cout << ", " << count << " "
              << (outcome == kRead             ? "read"
                  : outcome == kRefused        ? "refused"
                  : outcome == kOurMistake     ? "ended in an InternalError"
                  : outcome == kOtherException ? "ended in another exception"
                  : outcome < 0                ? fmt::format("ended by signal {}", -outcome)
                                : fmt::format("ended with exit code {} (a sanitizer?)", outcome));
  }
  std::cout << "\n";
  return 0;
}
