#include "apps/scrna_train/command_line.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <sstream>
#include <utility>

#include <unistd.h>

#include "lib/core/suggest.h"

namespace scrna::app {
namespace {

constexpr std::size_t kWidth = 100;
constexpr std::size_t kTextColumn = 26;  // where the text of a flag begins

// Words of `text` in lines of kWidth, indented; a newline in the text is kept.
std::string wrapped(std::string_view text, std::size_t indent, std::size_t first_column) {
  std::string out;
  std::size_t column = first_column;
  std::istringstream lines{std::string(text)};
  std::string line;
  bool is_first_line = true;
  while (std::getline(lines, line)) {
    if (!is_first_line) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    }
    is_first_line = false;
    std::istringstream words{line};
    std::string word;
    bool at_start = true;
    while (words >> word) {
      if (!at_start && column + 1 + word.size() > kWidth) {
        out += "\n" + std::string(indent, ' ');
        column = indent;
        at_start = true;
      }
      out += (at_start ? "" : " ") + word;
      column += word.size() + (at_start ? 0 : 1);
      at_start = false;
    }
  }
  return out;
}

std::string entry(const std::string& name, std::string_view text) {
  std::string out = "  " + name;
  if (out.size() + 2 > kTextColumn) {
    out += "\n" + std::string(kTextColumn, ' ');
  } else {
    out.resize(kTextColumn, ' ');
  }
  return out + wrapped(text, kTextColumn, kTextColumn) + "\n";
}

std::string names_of(const CLI::Option& option) {
  if (option.get_positional()) return option.get_type_name();
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) names.push_back("--" + name);
  std::string text = fmt::format("{}", fmt::join(names, ", "));
  if (option.get_items_expected_max() > 0) text += " " + option.get_type_name();
  return text;
}

std::string text_of(const CLI::Option& option) {
  std::string text = option.get_description();
  if (!option.get_default_str().empty()) text += fmt::format(" [{}]", option.get_default_str());
  if (option.get_required() && !option.get_positional()) text += " (required)";
  return text;
}

std::string full_name(const CLI::App& command) {
  return command.get_parent() == nullptr ? command.get_name()
                                         : full_name(*command.get_parent()) + " " + command.get_name();
}

std::string usage(const CLI::App& command) {
  std::string text = "Usage: " + full_name(command);
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_required() && !option->get_positional()) text += " " + names_of(*option);
  }
  text += " [OPTIONS]";
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_positional()) text += " " + option->get_type_name();
  }
  return text + (command.get_subcommands({}).empty() ? "" : " COMMAND ...") + "\n";
}

std::vector<std::string> flags_of(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::vector<std::string> subcommands_of(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* sub : command.get_subcommands({})) names.push_back(sub->get_name());
  return names;
}

[[noreturn]] void refuse(const CLI::App& command, const std::string& problem, const std::string& nearest) {
  throw ConfigError("{}; {}see '{} --help'", problem,
                    nearest.empty() ? "" : fmt::format("did you mean '{}'? ", nearest), full_name(command));
}

/// The last command of the words that were parsed: `bench attention` of `scrna-train bench attention --tokens
/// x`.
CLI::App& last_command(CLI::App& cli) {
  const auto parsed = cli.get_subcommands();
  return parsed.empty() ? cli : last_command(*parsed.back());
}

// CLI11's words for a flag without its value count arguments; these say what is missing.
std::string in_words(const CLI::ParseError& problem) {
  const std::string text = problem.what();
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&problem) == nullptr) return text;
  return fmt::format("{}: expects one value", text.substr(0, text.find(':')));
}

// A word that no command or flag took, the first of the line.
[[noreturn]] void refuse_word(const CLI::App& command, const std::string& word) {
  if (word.starts_with("-")) {
    const std::string flag = word.substr(0, word.find('='));
    refuse(command, fmt::format("unknown flag '{}'", flag), nearest_name(flag, flags_of(command)));
  }
  const std::vector<std::string> commands = subcommands_of(command);
  if (commands.empty()) refuse(command, fmt::format("unexpected argument '{}'", word), "");
  std::vector<std::string> known = commands;
  for (const std::string& flag : flags_of(command)) known.push_back(flag);  // `help` means --help
  const std::string nearest = nearest_name(word, known);
  refuse(command,
         nearest.empty()
             ? fmt::format("unknown command '{}'; the commands are {}", word, fmt::join(commands, ", "))
             : fmt::format("unknown command '{}'", word),
         nearest);
}

}  // namespace

CLI::App& add_command(Program& program, const std::string& name, const std::string& purpose,
                      const std::vector<Example>& examples, std::function<ExitCode()> run) {
  return add_command(program.cli, program, name, purpose, examples, std::move(run));
}

CLI::App& add_command(CLI::App& group, Program& program, const std::string& name, const std::string& purpose,
                      const std::vector<Example>& examples, std::function<ExitCode()> run) {
  CLI::App& command = *group.add_subcommand(name, purpose);
  command.set_help_flag("-h,--help", "print this help");
  std::string footer = "Examples:\n";
  for (const Example& example : examples) {
    footer += fmt::format("  {}\n      {}\n", example.command, wrapped(example.what, 6, 6));
  }
  command.footer(footer);
  command.callback([&program, run = std::move(run)] { program.run = run; });
  return command;
}

CLI::App& add_command_group(Program& program, const std::string& name, const std::string& purpose) {
  CLI::App& group = *program.cli.add_subcommand(name, purpose);
  group.set_help_flag("-h,--help", "print this help; after a command: the help of that command");
  return group;
}

void describe_program(Program& program) {
  program.cli.description(
      "pretrains single-cell foundation models straight from AnnData .h5ad files. "
      "Reads raw counts, ranks each cell's genes by expression and trains a masked-gene encoder, on CPU or "
      "GPU.");
  program.cli.set_help_flag("-h,--help", "print this help; after a command: the help of that command");
  program.cli.set_version_flag("--version", version_text);
  program.cli.get_option("--version")
      ->description("print what this program was built with and what it found here");
  program.cli.footer(
      "Examples:\n"
      "  scrna-train synthesize --out cells.h5ad\n"
      "      write a file of synthetic cells to try the program on\n"
      "  scrna-train inspect cells.h5ad\n"
      "      what a file holds, and whether a model can be trained on it\n"
      "  scrna-train train --config configs/demo.yaml --set data.files=cells.h5ad\n"
      "      train, with metrics and checkpoints in the run directory\n"
      "\n"
      "Exit codes:\n"
      "  0    done\n"
      "  2    command line or configuration\n"
      "  3    an input file, a checkpoint, or writing an output file\n"
      "  4    training diverged: loss or gradients that are not finite\n"
      "  5    GPU or communication between processes\n"
      "  70   a mistake in scrna-train; please report it\n"
      "  143  stopped by SIGTERM or Ctrl-C after a checkpoint was saved\n");
}

bool parse(Program& program, int argc, const char* const* argv) {
  CLI::App& cli = program.cli;
  try {
    cli.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    print(help_text(last_command(cli)));
    return false;
  } catch (const CLI::CallForVersion&) {
    print(version_text());
    return false;
  } catch (const CLI::ParseError& problem) {
    // A misspelt word explains the others: '--ouput x' also lacks the required --output.
    const CLI::App& command = last_command(cli);
    for (const CLI::App* taken : {static_cast<const CLI::App*>(&cli), command.get_parent(), &command}) {
      if (taken == nullptr) continue;
      if (const auto words = taken->remaining(); !words.empty() && words.front() != "--")
        refuse_word(*taken, words.front());
    }
    refuse(command, in_words(problem), "");
  }
  if (!program.run) {
    const CLI::App& command = last_command(cli);
    throw ConfigError("no command given; the commands {}are {}; see '{} --help'",
                      &command == &cli ? "" : fmt::format("of '{}' ", full_name(command)),
                      fmt::join(subcommands_of(command), ", "), full_name(command));
  }
  return true;
}

std::string help_text(const CLI::App& command) {
  const std::string title = full_name(command) + ": " + command.get_description();
  std::string text = wrapped(title, 2, 0) + "\n\n" + usage(command);
  std::string arguments, options, commands;
  for (const CLI::Option* option : command.get_options()) {
    (option->get_positional() ? arguments : options) += entry(names_of(*option), text_of(*option));
  }
  for (const CLI::App* sub : command.get_subcommands({})) {
    commands += entry(sub->get_name(), sub->get_description());
  }
  if (!commands.empty()) text += "\nCommands:\n" + commands;
  if (!arguments.empty()) text += "\nArguments:\n" + arguments;
  if (!options.empty()) text += "\nOptions [default]:\n" + options;
  return text + "\n" + command.get_footer();
}

void print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      if (errno == EPIPE) return;
      throw DataError("cannot write to standard output: {}", std::strerror(errno));
    }
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

}  // namespace scrna::app
