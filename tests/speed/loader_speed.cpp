// How fast .h5ad files are opened, read and turned into batches, and how much memory that takes. Not a test:
// it prints numbers for a human.
//   loader_speed FILE.h5ad...                                   read, open, one epoch
//   loader_speed --read FILE.h5ad                               only read X once, in blocks of 128 cells
//   loader_speed --epoch VOCABULARY.tsv WINDOW FILE.h5ad...     open, first batch, one epoch; windows of that many
//   cells loader_speed --synthesize CELLS GENES MEDIAN FILE.h5ad      make a file to try it on
#include <algorithm>
#include <iostream>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <sys/resource.h>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/data/build_vocabulary.h"
#include "lib/data/loader.h"
#include "lib/data/synthesize.h"

namespace {

using namespace scrna::data;

rusage usage_so_far() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage;
}
double cpu_seconds(const rusage& usage) {
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Runs `work`, which returns a number of cells, and prints its speed.
template <class Work>
void timed(const std::string& what, const Work& work) {
  double seconds = 0;
  int64_t cells = 0;
  const double cpu_before = cpu_seconds(usage_so_far());
  {
    const scrna::ScopedTimer timer(seconds);
    cells = work();
  }
  const double cpu =
      cpu_seconds(usage_so_far()) - cpu_before;  // what counts on a machine that others use, too
  std::cout << fmt::format(
                   "{:<44} {:>7} cells {:>7.2f} s {:>7.0f} cells/s; {:>6.2f} CPU s {:>7.0f} cells/CPU s; "
                   "peak {} MB\n",
                   what, cells, seconds, static_cast<double>(cells) / seconds, cpu,
                   static_cast<double>(cells) / cpu, usage_so_far().ru_maxrss >> 10)
            << std::flush;
}

int64_t read_all(const CountMatrix& matrix) {
  constexpr int64_t kCellsPerBlock = 128;
  for (int64_t first = 0; first < matrix.num_cells(); first += kCellsPerBlock)
    static_cast<void>(matrix.read(first, std::min(kCellsPerBlock, matrix.num_cells() - first)));
  return matrix.num_cells();
}

void measure(const std::vector<std::string>& files) {
  DataConfig config;
  config.files = files;
  std::vector<CellSource> sources;
  const auto count = [&] {
    int64_t cells = 0;
    for (const CellSource& source : sources) cells += source.matrix->num_cells();
    return cells;
  };
  timed("open files, choose matrix and gene ids", [&] {
    sources = open_sources(config);
    return count();
  });
  timed("read in order, not tokenized, 1 thread", [&] {
    int64_t cells = 0;
    for (const CellSource& source : sources) cells += read_all(*source.matrix);
    return cells;
  });
  std::optional<Vocabulary> vocabulary;
  timed("build the vocabulary, 1 thread", [&] {
    vocabulary.emplace(build_vocabulary(sources, 1));
    return count();
  });
  std::optional<Corpus> corpus;
  config.scan_cells = std::numeric_limits<int64_t>::max();
  timed(fmt::format("scan the corpus, {} threads", config.num_workers), [&] {
    const int64_t cells = count();
    corpus.emplace(std::move(sources), std::move(*vocabulary), config, TokenizerConfig{});
    return cells;
  });
  timed(fmt::format("one shuffled epoch of batches, {} threads", config.num_workers), [&] {
    TrainLoader loader(*corpus, loader_options(config, MaskingConfig{}, 0, 256));
    int64_t cells = 0;
    while (cells < corpus->num_training_cells()) cells += loader.next().num_cells;
    return cells;
  });
}

// With a vocabulary at hand: what a run does that is larger than memory (larger_than_memory.sh).
void one_epoch(const std::string& vocabulary, int64_t window_cells, const std::string& cache,
               const std::vector<std::string>& files) {
  DataConfig config;
  config.files = files;
  config.shuffle_window_cells = window_cells;
  config.cache = cache;
  std::optional<Corpus> corpus;
  timed(fmt::format("open {} file(s){}, {} threads", files.size(), cache.empty() ? ", look at some cells" : " and cache",
                    config.num_workers),
        [&] {
          Vocabulary known = Vocabulary::load(vocabulary);
          std::vector<CellSource> sources = open_sources(config, &known);
          corpus.emplace(std::move(sources), std::move(known), config, TokenizerConfig{});
          return corpus->total_report().cells;
        });
  std::optional<TrainLoader> loader;
  int64_t cells = 0;
  timed("first batch of 256", [&] {
    loader.emplace(*corpus, loader_options(config, MaskingConfig{}, 0, 256));
    return cells = loader->next().num_cells;
  });
  timed(fmt::format("the rest of the epoch, windows of {}", window_cells), [&] {
    const int64_t before = cells;
    while (cells < corpus->num_training_cells()) cells += loader->next().num_cells;
    return cells - before;
  });
}

void synthesize_file(char** arguments) {
  SynthesizeOptions options;
  options.cells = std::stoll(arguments[0]);
  options.genes = std::stoll(arguments[1]);
  options.median_genes = std::stoll(arguments[2]);
  timed(fmt::format("synthesize {}", arguments[3]), [&] { return synthesize(options, arguments[3]).cells; });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "usage: loader_speed [--read] FILE.h5ad... | --epoch VOCABULARY.tsv WINDOW FILE.h5ad... | "
                 "--cached CACHE WINDOW FILE.h5ad... | "
                 "--synthesize CELLS GENES MEDIAN FILE.h5ad\n";
    return 2;
  }
  scrna::log::set_console_level(scrna::log::Level::kWarning);
  try {
    const std::string first = argv[1];
    if (first == "--synthesize" && argc == 6) {
      synthesize_file(argv + 2);
    } else if (first == "--epoch" && argc >= 5) {
      one_epoch(argv[2], std::stoll(argv[3]), "", {argv + 4, argv + argc});
    } else if (first == "--cached" && argc >= 5) {
      one_epoch(std::string(argv[2]) + "/vocabulary.tsv", std::stoll(argv[3]), argv[2],
                {argv + 4, argv + argc});
    } else if (first == "--read" && argc == 3) {
      const auto matrix = AnnDataFile(argv[2]).open_matrix("X");
      timed(fmt::format("read X ({}) once", name_of(matrix->layout())), [&] { return read_all(*matrix); });
    } else {
      measure({argv + 1, argv + argc});
    }
  } catch (const scrna::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.code());
  }
  return 0;
}
