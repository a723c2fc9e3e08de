#include "lib/core/progress.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <utility>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "lib/core/clock.h"
#include "lib/core/log.h"

namespace scrna {
namespace {

constexpr double kSecondsBetweenDrawings = 0.1;
constexpr double kSecondsBetweenLines = 10;
constexpr int kBarColumns = 24;
constexpr std::string_view kClearLine = "\r\x1b[K";

// A bar stands on the terminal's last line. Atomic: the log clears it without this file's locks.
std::atomic<bool> line_is_drawn{false};

void write_to_stderr(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written <= 0) return;  // progress is never a reason to fail
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

void clear_standard_error() {
  if (line_is_drawn.exchange(false)) write_to_stderr(kClearLine);
}

int columns_of_stderr() {
  winsize size{};
  return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

bool bars_are_off = false;

bool stderr_shows_bars() {
  if (bars_are_off) return false;
  const char* const term = std::getenv("TERM");
  const char* const no_color = std::getenv("NO_COLOR");
  return ::isatty(STDERR_FILENO) == 1 && (term == nullptr || std::string_view(term) != "dumb") &&
         (no_color == nullptr || *no_color == '\0');
}

std::string rate_text(double per_second) {
  if (per_second >= 100) return grouped(std::llround(per_second));
  return per_second >= 10 ? fmt::format("{:.1f}", per_second) : fmt::format("{:.2f}", per_second);
}

// At most `columns` characters; UTF-8 stays whole.
std::string_view cut(std::string_view text, int columns) {
  std::size_t end = 0;
  for (int column = 0; end < text.size() && column < columns; ++column) {
    do {
      ++end;
    } while (end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U);
  }
  return text.substr(0, end);
}

}  // namespace

const ProgressOutput& ProgressOutput::standard_error() {
  static const ProgressOutput output = [] {
    ProgressOutput made;
    made.is_terminal = stderr_shows_bars();
    made.num_columns = columns_of_stderr;
    made.now_seconds = scrna::now_seconds;
    if (made.is_terminal) {
      log::set_before_console_line(clear_standard_error);
      made.write = [](std::string_view text) {
        line_is_drawn = text != kClearLine;
        write_to_stderr(text);
      };
    } else {
      made.write = [](std::string_view line) { log::info("{}", line); };
    }
    return made;
  }();
  return output;
}

void show_no_bars() { bars_are_off = true; }

ProgressBar::ProgressBar(std::string what, int64_t total, std::string unit, int64_t done,
                         const ProgressOutput& output)
    : what_(std::move(what)),
      total_(total),
      unit_(std::move(unit)),
      first_done_(done),
      output_(output),
      start_seconds_(output.now_seconds()),
      // The first drawing comes at once, the first plain line after ten seconds.
      last_shown_seconds_(output.is_terminal ? -1e9 : start_seconds_),
      last_done_(done) {}

void ProgressBar::update(int64_t done, std::string_view note) {
  std::string line;
  {
    const std::scoped_lock lock(mutex_);
    if (is_finished_) return;
    last_done_ = done;
    last_note_ = note;
    const double now = output_.now_seconds();
    if (now - last_shown_seconds_ < (output_.is_terminal ? kSecondsBetweenDrawings : kSecondsBetweenLines))
      return;
    last_shown_seconds_ = now;
    if (output_.is_terminal) {
      draw(done, now, note);
      return;
    }
    has_printed_ = true;
    line = fmt::format("[{}] {}", what_, words(done, now, note));
  }
  output_.write(line);  // outside the lock: the log has one of its own
}

void ProgressBar::finish() {
  std::string line;
  {
    const std::scoped_lock lock(mutex_);
    if (std::exchange(is_finished_, true)) return;
    if (output_.is_terminal) {
      if (last_shown_seconds_ >= 0) output_.write(kClearLine);
      return;
    }
    if (!has_printed_) return;
    line = fmt::format("[{}] {}", what_, words(last_done_, output_.now_seconds(), last_note_));
  }
  output_.write(line);
}

std::string ProgressBar::words(int64_t done, double now, std::string_view note) const {
  const double elapsed = now - start_seconds_;
  // The first moments say nothing about the rest.
  const double rate = elapsed >= 0.5 ? static_cast<double>(done - first_done_) / elapsed : 0;
  std::string text;
  if (total_ > 0) {
    text = fmt::format("{:3.0f} %  {}/{} {}",
                       std::floor(100.0 * static_cast<double>(done) / static_cast<double>(total_)),
                       grouped(done), grouped(total_), unit_);
  } else {
    text = fmt::format("{} {}", grouped(done), unit_);
  }
  if (rate > 0) {
    text += fmt::format("  {}/s", rate_text(rate));
    if (done < total_) {
      text += fmt::format("  {} left", clock_text(static_cast<double>(total_ - done) / rate));
    } else {
      text += fmt::format("  {}", clock_text(elapsed));
    }
  }
  if (!note.empty()) text += fmt::format("  {}", note);
  return text;
}

void ProgressBar::draw(int64_t done, double now, std::string_view note) {
  std::string bar;
  if (total_ > 0) {
    const double part = std::clamp(static_cast<double>(done) / static_cast<double>(total_), 0.0, 1.0);
    bar.assign(static_cast<std::size_t>(part * kBarColumns), '#');
    bar.resize(kBarColumns, '.');
    bar = " [" + bar + "]";
  }
  const std::string line = fmt::format("{}{} {}", what_, bar, words(done, now, note));
  output_.write(fmt::format("{}{}", kClearLine, cut(line, output_.num_columns() - 1)));
}

void PhaseProgress::operator()(std::string_view phase, int64_t done, int64_t total) {
  if (!bar_ || phase != phase_) {
    phase_ = phase;
    bar_.emplace(phase_, total, unit_);
  }
  bar_->update(done);
}

std::string grouped(int64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0 && digits[i - 1] != '-') text += ',';
    text += digits[i];
  }
  return text;
}

std::string clock_text(double seconds) {
  if (!(seconds < 1e9)) return "long";
  const auto whole = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  const int64_t minutes = whole / 60, hours = whole / 3600, days = whole / 86400;
  if (days > 0) return fmt::format("{} d {:02}:{:02}", days, hours % 24, minutes % 60);
  if (hours > 0) return fmt::format("{}:{:02}:{:02}", hours, minutes % 60, whole % 60);
  return fmt::format("{}:{:02}", minutes, whole % 60);
}

}  // namespace scrna
