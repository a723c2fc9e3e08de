// scrna-train: one binary, one file per subcommand (commands.h). Here: parse, run, exit code.
#include <csignal>
#include <exception>

#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/commands.h"
#include "apps/scrna_train/failure.h"

int main(int argc, char** argv) {
  using namespace scrna::app;
  // A reader of our output that goes away must not end a training run; print() notices it.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is a write error like a full disk
  try {
    Program program;
    describe_program(program);
    add_inspect(program);
    add_synthesize(program);
    add_cache(program);
    add_evaluate(program);
    add_train(program);
    add_launch(program);
    add_replay(program);
    add_report(program);
    add_stress(program);
    add_embed(program);
    add_finetune(program);
    add_annotate(program);
    add_export(program);
    add_bench(program);
    if (!parse(program, argc, argv)) return 0;
    return static_cast<int>(program.run());
  } catch (...) {
    return static_cast<int>(report_failure(std::current_exception()));
  }
}
