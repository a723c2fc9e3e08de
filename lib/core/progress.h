// Progress of something that takes a while. On a terminal: one line with a bar, redrawn at most ten times a
// second and cleared before a log line. Elsewhere (a file, a batch job's log): a log line every ten seconds
// at most, so that short passes print nothing. Both show the same words; no result depends on either.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace scrna {

/// Where progress goes; tests put their own here.
struct ProgressOutput {
  bool is_terminal = false;
  std::function<int()> num_columns;             // width of the terminal
  std::function<void(std::string_view)> write;  // raw text on a terminal, else one line without newline
  std::function<double()> now_seconds;

  /// stderr: a terminal unless it is redirected, TERM is "dumb" or NO_COLOR is set.
  static const ProgressOutput& standard_error();
};

class ProgressBar {
 public:
  /// "vocabulary", 2700, "cells". total 0: unknown. `done`: what was done before (a resumed run), so that
  /// rate and remaining time count only what is new.
  ProgressBar(std::string what, int64_t total, std::string unit, int64_t done = 0,
              const ProgressOutput& output = ProgressOutput::standard_error());
  /// Clears the line.
  ~ProgressBar() { finish(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// From any thread, as often as convenient. `note` is shown at the end: "loss 3.21".
  void update(int64_t done, std::string_view note = {});
  /// Clears the line; a last plain line when earlier ones were printed. Later updates show nothing.
  void finish();

 private:
  [[nodiscard]] std::string words(int64_t done, double now, std::string_view note) const;
  void draw(int64_t done, double now, std::string_view note);

  const std::string what_;
  const int64_t total_;
  const std::string unit_;
  const int64_t first_done_;
  const ProgressOutput& output_;
  const double start_seconds_;
  std::mutex mutex_;
  double last_shown_seconds_;
  int64_t last_done_;
  std::string last_note_;
  bool has_printed_ = false;  // a plain line
  bool is_finished_ = false;
};

/// ProgressOutput::standard_error() is no terminal from now on: for one process of several, whose bars would
/// write over each other. To be called before the first bar.
void show_no_bars();

/// For callbacks that name the phase they are in (data::Progress): one bar after the other.
class PhaseProgress {
 public:
  explicit PhaseProgress(std::string unit) : unit_(std::move(unit)) {}
  void operator()(std::string_view phase, int64_t done, int64_t total);
  /// Clears the line.
  void finish() { bar_.reset(); }

 private:
  std::string unit_;
  std::string phase_;
  std::optional<ProgressBar> bar_;
};

/// "1,234,567".
std::string grouped(int64_t number);
/// "0:07", "12:34", "3:25:00", "2 d 03:04".
std::string clock_text(double seconds);

}  // namespace scrna
