#include "lib/train/run_files.h"

#include <filesystem>
#include <string>
#include <system_error>

#include "lib/checkpoint/checkpoint.h"
#include "lib/config/config.h"
#include "lib/core/files.h"
#include "lib/core/log.h"
#include "lib/data/sampling.h"
#include "lib/train/metrics.h"
#include "lib/train/run_facts.h"

namespace scrna::train {

namespace fs = std::filesystem;

RunDirectory begin_directory(const TrainConfig& config, const PreparedRun& run, int64_t num_ranks) {
  RunDirectory directory = RunDirectory::create(config.run.dir);
  try {
    write_file_atomically(directory.config(), config::dump(config));
    write_file_atomically(directory.facts(), facts_of(config, run, num_ranks));
    run.corpus->vocabulary().save(directory.vocabulary());
    if (const auto& groups = run.corpus->sampling_groups(); !groups.empty())
      write_file_atomically(directory.path() / "sampling.tsv", data::sampling_table(groups));
    log::open_file(directory.log());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(directory.path(), ignored);
    throw;
  }
  return directory;
}

RunDirectory continue_in(RunDirectory directory, const TrainConfig& config, const LoadedCheckpoint& loaded) {
  log::open_file(directory.log());
  const int64_t num_moved = rewind_metrics(directory.metrics(), loaded.state.step);
  if (num_moved > 0) {
    log::info("[resume] {} lines of metrics.jsonl beyond step {} moved to metrics.superseded.jsonl", num_moved,
              loaded.state.step);
  }
  const std::string yaml = config::dump(config);
  const std::string before = read_file(directory.config());
  if (yaml != before) {
    write_file_atomically(directory.path() / fmt::format("config.until-{}.yaml", checkpoint::folder_name(loaded.state.step)),
                          before);
    write_file_atomically(directory.config(), yaml);
  }
  return directory;
}

bool continues_in_place(const TrainConfig& config, const ResumePoint& resume) {
  return fs::weakly_canonical(config.run.dir) == fs::weakly_canonical(resume.run_directory);
}

}  // namespace scrna::train
