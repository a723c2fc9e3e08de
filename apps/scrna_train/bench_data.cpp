// scrna-train bench data: lib/bench/data_bench.h as a table on standard output and, with --json, as a file.
#include <algorithm>
#include <memory>
#include <string>

#include "apps/scrna_train/bench_report.h"
#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/fields.h"
#include "lib/bench/data_bench.h"
#include "lib/core/files.h"
#include "lib/core/progress.h"

namespace scrna::app {
namespace {

using bench::DataBenchOptions;
using bench::DataBenchResult;
using bench::DataBenchRow;

double best_seconds(const DataBenchRow& row) {
  return *std::min_element(row.seconds.begin(), row.seconds.end());
}

std::string table_head() {
  return fmt::format("{:<22}{:>8}{:>9}{:>12}{:>12}{:>15}{:>10}\n", "", "threads", "context", "cells/s",
                     "best", "entries/s", "peak MB");
}
std::string table_line(const DataBenchRow& row) {
  const auto per_second = [&](int64_t count, double seconds) {
    return grouped(static_cast<int64_t>(static_cast<double>(count) / seconds));
  };
  return fmt::format("{:<22}{:>8}{:>9}{:>12}{:>12}{:>15}{:>10}\n", row.what, row.workers,
                     row.context == 0 ? "-" : grouped(row.context),
                     per_second(row.cells, row.median_seconds()), per_second(row.cells, best_seconds(row)),
                     per_second(row.entries, row.median_seconds()),
                     grouped(row.peak_resident_bytes / 1000000));
}
std::string table_foot(const DataBenchOptions& options, const DataBenchResult& result) {
  return fmt::format(
      "\n{} file(s), {:.1f} MB: {} cells, {:.0f} stored values per cell; opened in {:.2f} s{}\n"
      "cells/s: median of {} passes; entries: stored values, or tokens where there is a context\n"
      "blocks of {} cells, windows of {}, batches of {}; micro-batches are masked and packed, too\n",
      result.num_files, static_cast<double>(result.file_bytes) / 1e6, grouped(result.cells),
      static_cast<double>(result.stored_values) / static_cast<double>(result.cells), result.open_seconds,
      result.vocabulary_seconds > 0 ? fmt::format(", vocabulary built in {:.1f} s", result.vocabulary_seconds)
                                    : "",
      options.repeats, options.block_cells, options.window_cells, options.batch_cells);
}

nlohmann::ordered_json json_of(const DataBenchOptions& options, const DataBenchResult& result) {
  nlohmann::ordered_json json = machine_json(bench::cpu_machine(), false);
  json["benchmark"] = "data";
  json["settings"] = {{"files", options.files},
                      {"vocabulary", options.vocabulary},
                      {"cache", options.cache},
                      {"block_cells", options.block_cells},
                      {"window_cells", options.window_cells},
                      {"batch_cells", options.batch_cells},
                      {"repeats", options.repeats},
                      {"seed", options.seed}};
  json["data"] = {{"files", result.num_files},
                  {"bytes", result.file_bytes},
                  {"cells", result.cells},
                  {"genes", result.genes},
                  {"stored_values", result.stored_values},
                  {"open_seconds", result.open_seconds},
                  {"vocabulary_seconds", result.vocabulary_seconds}};
  json["rows"] = nlohmann::ordered_json::array();
  for (const DataBenchRow& row : result.rows) {
    const double seconds = row.median_seconds();
    json["rows"].push_back({{"what", row.what},
                            {"workers", row.workers},
                            {"context", row.context},
                            {"cells", row.cells},
                            {"entries", row.entries},
                            {"seconds", row.seconds},
                            {"cells_per_second", static_cast<double>(row.cells) / seconds},
                            {"entries_per_second", static_cast<double>(row.entries) / seconds},
                            {"peak_resident_bytes", row.peak_resident_bytes}});
  }
  return json;
}

struct BenchDataCommand {
  std::string json;
};

ExitCode bench_data(const BenchDataCommand& command, const DataBenchOptions& options) {
  if (!command.json.empty()) check_json_target(command.json, "data.json");
  bool has_head = false;  // after the first row: before it, opening may fail
  const DataBenchResult result = bench::bench_data(options, [&](const DataBenchRow& row) {
    print((has_head ? "" : table_head()) + table_line(row));
    has_head = true;
  });
  print(table_foot(options, result));
  if (!command.json.empty()) write_file_atomically(command.json, json_of(options, result).dump(1) + "\n");
  return ExitCode::kDone;
}

}  // namespace

void add_bench_data(Program& program, CLI::App& group) {
  auto command = std::make_shared<BenchDataCommand>();
  auto options = std::make_shared<DataBenchOptions>();
  CLI::App& app = add_command(
      group, program, "data",
      "measures how fast .h5ad files become cells in the order of training: single rows, shuffled blocks, "
      "tokenized, "
      "micro-batches; with threads and peak memory.",
      {{"scrna-train bench data cells.h5ad", "each row three times with one and two threads"},
       {"scrna-train bench data a.h5ad b.h5ad --max-workers 8 --json data.json",
        "several files, up to eight threads"},
       {"scrna-train bench data cells.h5ad --vocabulary vocabulary.tsv", "with a vocabulary at hand"}},
      [command, options] { return bench_data(*command, *options); });
  app.add_option("FILE.h5ad", options->files, ".h5ad files, or patterns with * ? []")
      ->required()
      ->type_name("FILE.h5ad ...");
  add_fields(app, options);
  app.add_option("--json", command->json,
                 "also write everything to this file, which is replaced if it exists")
      ->type_name("FILE");
}

}  // namespace scrna::app
