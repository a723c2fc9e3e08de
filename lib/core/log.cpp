#include "lib/core/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "lib/core/error.h"

namespace scrna::log {
namespace {

constexpr const char* kPattern = "%H:%M:%S %^%L%$ %v";
constexpr const char* kFilePattern = "%Y-%m-%dT%H:%M:%S.%e %L %v";

// A line that was written before there was a file for it.
struct EarlyLine {
  spdlog::log_clock::time_point time;
  spdlog::level::level_enum level;
  std::string message;
};
constexpr std::size_t kMaxEarlyLines = 10000;

struct Sinks {
  std::mutex mutex;
  std::vector<EarlyLine> early_lines;
  std::shared_ptr<spdlog::logger> console;
  std::shared_ptr<spdlog::logger> file;
  void (*before_console_line)() = nullptr;
  Sinks() {
    console = std::make_shared<spdlog::logger>("console", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    console->set_pattern(kPattern);
    console->set_level(spdlog::level::info);
  }
};

Sinks& sinks() {
  static Sinks instance;
  return instance;
}

spdlog::level::level_enum native(Level level) {
  switch (level) {
    case Level::kDebug: return spdlog::level::debug;
    case Level::kInfo: return spdlog::level::info;
    case Level::kWarning: return spdlog::level::warn;
    case Level::kError: return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

void write(Level level, std::string_view message) {
  Sinks& all = sinks();
  const std::scoped_lock lock(all.mutex);
  if (all.console->should_log(native(level))) {
    if (all.before_console_line != nullptr) all.before_console_line();
    all.console->log(native(level), message);
    all.console->flush();
  }
  if (all.file) {
    all.file->log(native(level), message);
    all.file->flush();
  } else if (all.early_lines.size() < kMaxEarlyLines) {
    all.early_lines.push_back({spdlog::log_clock::now(), native(level), std::string(message)});
  }
}

void write_failure(std::string_view message) {
  Sinks& all = sinks();
  const std::scoped_lock lock(all.mutex);
  if (all.before_console_line != nullptr) all.before_console_line();
  fmt::print(stderr, "scrna-train: error: {}\n", message);
  if (all.file) {
    all.file->log(spdlog::level::err, message);
    all.file->flush();
  }
}

void set_console_level(Level level) { sinks().console->set_level(native(level)); }

void open_file(const std::filesystem::path& path) {
  Sinks& all = sinks();
  const std::scoped_lock lock(all.mutex);
  try {
    all.file = std::make_shared<spdlog::logger>(
        "file", std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string(), /*truncate=*/false));
  } catch (const spdlog::spdlog_ex& problem) {
    throw DataError("{}: cannot write the log file: {}", path.string(), problem.what());
  }
  all.file->set_pattern(kFilePattern);
  all.file->set_level(spdlog::level::debug);
  for (const EarlyLine& line : all.early_lines) all.file->log(line.time, {}, line.level, line.message);
  all.early_lines.clear();
  all.file->flush();
}

void close_file() {
  Sinks& all = sinks();
  const std::scoped_lock lock(all.mutex);
  all.file.reset();
}

void set_before_console_line(void (*hook)()) {
  Sinks& all = sinks();
  const std::scoped_lock lock(all.mutex);
  all.before_console_line = hook;
}

}  // namespace scrna::log
