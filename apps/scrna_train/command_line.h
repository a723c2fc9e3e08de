// The command line: subcommands with examples, help in one width, and misspelt words answered with the
// nearest known one. CLI11 parses; help and messages are ours, because those of its versions 2.1 (Debian 12)
// and 2.4 (Ubuntu 24.04) differ, and neither wraps lines or suggests.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "apps/scrna_train/commands.h"

namespace scrna::app {

struct Example {
  std::string command;  // to copy and paste
  std::string what;     // what it does, without a full stop
};

/// Declares a subcommand; the caller adds its flags. `run` is called after a complete parse. Text of a flag:
/// lower case, units, no full stop; its default comes from ->default_str().
CLI::App& add_command(Program& program, const std::string& name, const std::string& purpose,
                      const std::vector<Example>& examples, std::function<ExitCode()> run);
/// The same below a group of commands.
CLI::App& add_command(CLI::App& group, Program& program, const std::string& name, const std::string& purpose,
                      const std::vector<Example>& examples, std::function<ExitCode()> run);
/// A command that only holds others: `bench attention`.
CLI::App& add_command_group(Program& program, const std::string& name, const std::string& purpose);
/// The same section of examples (with exit codes) for the program itself.
void describe_program(Program& program);

/// Parses and returns true when there is a command to run; false when --help or --version was printed. Throws
/// ConfigError for anything else, with what to type instead.
bool parse(Program& program, int argc, const char* const* argv);

/// Help of a (sub)command, at most 100 columns wide.
std::string help_text(const CLI::App& command);

/// Writes to standard output. A reader that went away (`| head`) is no error; a full disk is a DataError.
void print(std::string_view text);

}  // namespace scrna::app
