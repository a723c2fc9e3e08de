// Parts of a whole as one bar a row, and a histogram.
#pragma once

#include <string>
#include <vector>

#include "lib/report/svg.h"

namespace scrna::report {

struct StackedBars {
  std::string title;
  std::vector<std::string> parts;           // in the order of drawing, named above the bars
  struct Row {
    std::string label;
    std::vector<double> values;             // [parts], 0 or more; drawn as shares of their sum
  };
  std::vector<Row> rows;
  double width = 520;
};
Svg draw(const StackedBars& bars);

struct Histogram {
  std::string title, x_label;
  std::vector<double> edges;                // [bins + 1] ascending, above 0: a logarithmic axis
  struct Counts {
    std::string label;
    int colour = 0;
    std::vector<double> counts;             // [bins]
  };
  std::vector<Counts> sets;                 // drawn as outlines of shares, so that sets of different sizes compare
  double width = 520, height = 220;
};
Svg draw(const Histogram& histogram);

}  // namespace scrna::report
