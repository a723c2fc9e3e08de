// scrna-train cache: lib/data/token_cache.h from the command line, with the settings a run has.
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "apps/scrna_train/command_line.h"
#include "lib/config/config.h"
#include "lib/core/clock.h"
#include "lib/core/progress.h"
#include "lib/data/build_vocabulary.h"
#include "lib/data/corpus.h"
#include "lib/train/train_config.h"

namespace scrna::app {
namespace {

struct CacheCommand {
  std::vector<std::string> files;
  std::string out;
  std::string config;
  std::vector<std::string> overrides;
};

train::TrainConfig read_config(const CacheCommand& command) {
  train::TrainConfig config;
  if (!command.config.empty()) {
    config = config::load<train::TrainConfig>(command.config, command.overrides);
  } else {
    config::Node root = config::parse_text("{}", "defaults");
    for (const std::string& assignment : command.overrides) config::apply_override(root, assignment);
    config = config::from_node<train::TrainConfig>(root);
  }
  if (!command.files.empty()) config.data.files = command.files;
  config.data.cache.clear();  // the one to be made
  config.data.scan_cells = std::numeric_limits<int64_t>::max();
  return config;
}

ExitCode make_cache(const CacheCommand& command) {
  const train::TrainConfig config = read_config(command);
  const std::filesystem::path folder = command.out;
  PhaseProgress progress("cells");
  const double start = now_seconds();
  std::unique_ptr<data::Vocabulary> vocabulary;
  if (!config.data.vocabulary.empty())
    vocabulary = std::make_unique<data::Vocabulary>(data::Vocabulary::load(config.data.vocabulary));
  std::vector<data::CellSource> sources = data::open_sources(config.data, vocabulary.get());
  if (!vocabulary) {
    vocabulary = std::make_unique<data::Vocabulary>(
        data::build_vocabulary(sources, config.data.vocabulary_min_cells, std::ref(progress)));
  }
  const data::Corpus corpus(std::move(sources), std::move(*vocabulary), config.data, config.tokenizer,
                            std::ref(progress));
  const data::CacheReport report = data::write_token_cache(corpus, folder, std::ref(progress));
  progress.finish();
  print(fmt::format(
      "{}: {} cells, {} tokens, {:.1f} MB ({:.2f} of the files' {:.1f} MB), {:.1f} s{}\n"
      "  next: scrna-train train --config ... --set data.cache={} --set data.vocabulary={}\n",
      folder.string(), grouped(report.cells), grouped(report.tokens), static_cast<double>(report.bytes) / 1e6,
      static_cast<double>(report.bytes) / static_cast<double>(report.source_bytes),
      static_cast<double>(report.source_bytes) / 1e6, now_seconds() - start,
      report.files_kept > 0 ? fmt::format("; {} files of tokens were there already", report.files_kept) : "",
      folder.string(), (folder / "vocabulary.tsv").string()));
  return ExitCode::kDone;
}

}  // namespace

void add_cache(Program& program) {
  auto command = std::make_shared<CacheCommand>();
  CLI::App& app = add_command(
      program, "cache",
      "writes the tokens of the files' cells into a folder that runs read instead of the files (data.cache): "
      "they begin "
      "at once and decompress nothing. Interrupted, the same command goes on where it was.",
      {{"scrna-train cache cells.h5ad --out cells.cache",
        "2,048 tokens of each cell, vocabulary built from the file"},
       {"scrna-train cache --config configs/160m.yaml --set 'data.files=[data/*.h5ad]' --out atlas.cache",
        "with the tokenizer, filter and vocabulary of a configuration"},
       {"scrna-train train --config configs/160m.yaml --set data.files=cells.h5ad --set "
        "data.cache=cells.cache "
        "--set data.vocabulary=cells.cache/vocabulary.tsv",
        "a run from it; other settings than it was made with are refused"}},
      [command] { return make_cache(*command); });
  app.add_option("FILE.h5ad", command->files, ".h5ad files or patterns, over data.files")->type_name("FILE.h5ad ...");
  app.add_option("--out", command->out, "folder of the cache, made if it does not exist")
      ->required()
      ->type_name("FOLDER");
  app.add_option("--config", command->config, "settings of the run that will read it, YAML")
      ->type_name("FILE.yaml");
  app.add_option("--set", command->overrides,
                 "one setting over the file's, for example tokenizer.max_tokens=8192; repeatable")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

}  // namespace scrna::app
