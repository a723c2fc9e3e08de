// Curves over a common axis. Named at their right ends instead of in a legend, thinned to what pixels can
// show without losing a spike, and marked with a cross where a run diverged.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/report/scale.h"
#include "lib/report/svg.h"

namespace scrna::report {

struct Series {
  std::string label;  // at its right end; empty: none
  int colour = 0;
  std::vector<double> x, y;                 // of one length; a y that is not finite is a gap
  std::vector<double> low = {}, high = {};  // a band around it, of the same length; empty: none
  std::string style;                        // "", "thin", "faint", "dashed", "dotted"
  bool ends_in_cross = false;
  bool has_dots = false;  // for few points
  std::string tooltip;
};

struct ReferenceLine {
  double y = 0;
  std::string label;
};

struct LineChart {
  std::string title;
  std::string x_label = "step";
  ScaleKind x_kind = ScaleKind::kLinear, y_kind = ScaleKind::kLinear;
  std::optional<double> y_low, y_high;  // instead of what the data span
  std::vector<Series> series;
  std::vector<ReferenceLine> references;
  double width = 520, height = 280;
  int columns = 0;  // curves are thinned to so many; 0: to the pixels there are
};

/// No more than four points for each of `columns` columns: its first, lowest, highest and last. Gaps are
/// kept.
Series thinned(const Series& series, int columns);
/// Means of `count` equal parts of x: the trend behind a noisy curve. A part that holds a gap is one.
Series binned(const Series& series, int count);

Svg draw(const LineChart& chart);

}  // namespace scrna::report
