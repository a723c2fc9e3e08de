// Logging for the whole program: one line format on stderr and in the run's log.txt. Libraries call log::info and
// friends with a [tag]; nobody else includes spdlog.
#pragma once

#include <fmt/format.h>

#include <filesystem>
#include <string_view>
#include <utility>

namespace scrna::log {

enum class Level { kDebug, kInfo, kWarning, kError };

void write(Level level, std::string_view message);
/// The last words of a run that failed: `scrna-train: error: <message>` on stderr, without time, and an error in log.txt.
void write_failure(std::string_view message);
/// Least severe level that reaches stderr. log.txt always gets everything from kDebug up.
void set_console_level(Level level);
/// Also writes every line to `path` (appending) until close_file(), first those that came before there was a file: what a
/// run found out about its data belongs into its log.
void open_file(const std::filesystem::path& path);
void close_file();
/// Called before a log line goes to the terminal, so that a progress bar can clear its line. Null: none.
void set_before_console_line(void (*hook)());

template <class... Args> void debug(fmt::format_string<Args...> format, Args&&... args) { write(Level::kDebug, fmt::format(format, std::forward<Args>(args)...)); }
template <class... Args> void info(fmt::format_string<Args...> format, Args&&... args) { write(Level::kInfo, fmt::format(format, std::forward<Args>(args)...)); }
template <class... Args> void warning(fmt::format_string<Args...> format, Args&&... args) { write(Level::kWarning, fmt::format(format, std::forward<Args>(args)...)); }
template <class... Args> void error(fmt::format_string<Args...> format, Args&&... args) { write(Level::kError, fmt::format(format, std::forward<Args>(args)...)); }
template <class... Args> void failure(fmt::format_string<Args...> format, Args&&... args) { write_failure(fmt::format(format, std::forward<Args>(args)...)); }

}  // namespace scrna::log
