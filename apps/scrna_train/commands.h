// What main.cpp knows of the subcommands. Each add_<command>() declares its flags with add_command()
// (command_line.h) and what to run; main() parses, runs and turns exceptions into exit codes (failure.h).
#pragma once

#include <functional>
#include <string>

#include <CLI/CLI.hpp>

#include "lib/core/error.h"

namespace scrna::app {

struct Program {
  CLI::App cli{"", "scrna-train"};
  std::function<ExitCode()> run;  // of the subcommand that was parsed
};

void add_train(Program& program);
/// Starts several processes of `train`.
void add_launch(Program& program);
void add_replay(Program& program);
void add_report(Program& program);
void add_stress(Program& program);
void add_inspect(Program& program);
void add_synthesize(Program& program);
void add_cache(Program& program);
void add_embed(Program& program);
/// A classification head on a trained model, and the classes of cells by it.
void add_finetune(Program& program);
void add_annotate(Program& program);
void add_export(Program& program);
void add_evaluate(Program& program);
/// The group `bench` and everything below it.
void add_bench(Program& program);
void add_bench_attention(Program& program, CLI::App& group);
void add_bench_data(Program& program, CLI::App& group);
void add_bench_embed(Program& program, CLI::App& group);
void add_bench_train(Program& program, CLI::App& group);

/// What --version prints: the program, what it was built with, and what it found on this machine.
std::string version_text();
/// "0.1.0 (revision 0123abc)", and LibTorch's version: parts of the above, for reports.
std::string program_version();
std::string libtorch_version();

}  // namespace scrna::app
