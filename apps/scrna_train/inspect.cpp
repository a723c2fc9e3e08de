// scrna-train inspect: what .h5ad files hold. Standard output carries only the report; everything else goes
// to stderr. Of several files the readable ones are reported, whatever the others are.
#include <memory>
#include <sstream>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/fields.h"
#include "apps/scrna_train/inspect_report.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"

namespace scrna::app {
namespace {

struct InspectCommand {
  std::vector<std::string> files;
  data::InspectOptions options;
  bool as_json = false;
};

std::vector<int64_t> read_contexts(const std::string& text) {
  std::vector<int64_t> contexts;
  std::istringstream items{text};
  for (std::string item; std::getline(items, item, ',');) {
    config::read_value(flag_node(item), "--max-tokens", config::between(8, 1048576), contexts.emplace_back());
  }
  if (contexts.empty()) throw ConfigError("command line: --max-tokens: expected numbers such as 2048,4096");
  return contexts;
}

ExitCode inspect(const InspectCommand& command) {
  PhaseProgress progress("cells");
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  ExitCode code = ExitCode::kDone;
  for (const std::string& file : command.files) {
    try {
      const data::InspectReport report = data::inspect_file(file, command.options, std::ref(progress));
      progress.finish();
      if (command.as_json) {
        all.push_back(inspect_json(report));
      } else {
        print((&file == &command.files.front() ? "" : "\n") + inspect_text(report));
      }
    } catch (const DataError& problem) {
      progress.finish();
      log::failure("{}", problem.what());
      all.push_back({{"path", file}, {"error", problem.what()}});
      code = ExitCode::kData;
    }
  }
  if (command.as_json && (command.files.size() > 1 || code == ExitCode::kDone)) {
    const nlohmann::ordered_json& shown = command.files.size() == 1 ? all[0] : all;
    print(shown.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
  }
  return code;
}

}  // namespace

void add_inspect(Program& program) {
  auto command = std::make_shared<InspectCommand>();
  CLI::App& app = add_command(
      program, "inspect",
      "reports what .h5ad files hold and whether a model can be trained on them: matrices, which one has the "
      "raw "
      "counts and why, gene ids, obs columns, expressed genes per cell, and what a context length cuts off.",
      {{"scrna-train inspect cells.h5ad", "a report to read"},
       {"scrna-train inspect --json cells.h5ad", "one JSON object; of several files, an array"},
       {"scrna-train inspect --matrix layers/spliced --max-tokens 1024,2048 cells.h5ad",
        "the numbers of another matrix, for other context lengths"},
       {"scrna-train inspect --vocabulary runs/demo/vocabulary.tsv cells.h5ad",
        "how much of the file a model would know, and the largest genes that it would not"},
       {"scrna-train inspect --filter \"tissue in ['blood', 'lung']\" cells.h5ad",
        "how many cells data.filter would choose"},
       {"scrna-train inspect --json data/*.h5ad | jq -r '[.] | flatten[] | [.path, .matrix] | @tsv'",
        "one line for each of many files"}},
      [command] { return inspect(*command); });
  app.add_option("FILE.h5ad", command->files, "files to report on")->required()->type_name("FILE.h5ad ...");
  app.add_flag("--json", command->as_json, "print JSON instead of text");
  app.add_option("--matrix", command->options.matrix,
                 "matrix to look at: X, raw/X, layers/<name>, or auto: the one with raw counts")
      ->type_name("NAME")
      ->capture_default_str();
  app.add_option("--genome", command->options.genome, "genome to take of a 10x .h5 file with several")
      ->type_name("NAME");
  app.add_option("--gene-column", command->options.gene_column,
                 "var column that holds the gene ids, or index; default: found and reported")
      ->type_name("NAME");
  app.add_option("--gene-map", command->options.gene_map,
                 "table of other names of genes (columns alias and id), as data.gene_map")
      ->type_name("FILE.tsv");
  app.add_option("--vocabulary", command->options.vocabulary,
                 "vocabulary.tsv of a model: report how much of the file it knows, and the largest misses")
      ->type_name("FILE.tsv");
  app.add_option("--filter", command->options.filter,
                 "obs expression, as data.filter: report how many cells it chooses")
      ->type_name("TEXT");
  app.add_option_function<std::string>(
         "--max-tokens",
         [command](const std::string& text) { command->options.max_tokens = read_contexts(text); },
         "context lengths in tokens, separated by commas; each from 8 to 1048576")
      ->default_str("2048,4096,8192")
      ->type_name("N,N");
}

}  // namespace scrna::app
