// scrna-train report: run directories in, one self-contained page out.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/commands.h"
#include "lib/report/run_report.h"

namespace scrna::app {
namespace {

struct ReportCommand {
  std::vector<std::string> runs;
  std::string out = "report.html";
};

// The folders' own names; where two are alike, with as much of the path before them as tells them apart.
std::vector<report::RunData> read_all(const std::vector<std::string>& folders) {
  std::vector<report::RunData> runs;
  for (const std::string& folder : folders) runs.push_back(report::read_run(folder));
  for (report::RunData& run : runs) {
    const auto is_alike = [&](const report::RunData& other) { return &other != &run && other.folder.filename() == run.folder.filename(); };
    if (std::ranges::any_of(runs, is_alike)) run.name = run.folder.lexically_normal().string();
  }
  return runs;
}

ExitCode report_command(const ReportCommand& command) {
  const std::vector<report::RunData> runs = read_all(command.runs);
  report::run_report(runs).write(command.out);
  print(std::filesystem::absolute(command.out).lexically_normal().string() + "\n");
  return ExitCode::kDone;
}

}  // namespace

void add_report(Program& program) {
  auto command = std::make_shared<ReportCommand>();
  CLI::App& app = add_command(
      program, "report",
      "draws one or several runs, also ones that still go on: losses, gradient norms, largest scores, layers over time, speed, cells, "
      "settings and how they differ. One HTML file without scripts or network, for screen, phone and paper; each figure also as an "
      ".svg in FILE-figures beside it.",
      {{"scrna-train report runs/first --out first.html", "one run"},
       {"scrna-train report runs/sigmoid runs/softmax --out both.html", "two runs, compared"}},
      [command] { return report_command(*command); });
  app.add_option("RUN", command->runs, "run directories")->required()->type_name("RUN ...");
  app.add_option("--out", command->out, "the page; replaced if it exists")->type_name("FILE.html")->default_str(command->out);
}

}  // namespace scrna::app
