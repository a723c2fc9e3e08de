// A number of every layer over time as colour, logarithmic: where in the model something grows, and since when.
#pragma once

#include <string>
#include <vector>

#include "lib/report/svg.h"

namespace scrna::report {

struct HeatMap {
  std::string title;
  std::vector<std::string> rows;             // the first at the bottom
  std::vector<double> x;                     // steps, ascending
  std::vector<std::vector<double>> values;   // [rows][x]; not finite: the most intense colour, with a mark; below 0: none
  double width = 520;
};

/// At most this many columns are drawn; each shows the largest value of its steps.
inline constexpr int kHeatMapColumns = 110;
/// Colour of a place between 0 and 1, "#rrggbb": from dark blue over green to yellow, of rising lightness, told apart also
/// without colour vision and in grey.
std::string heat_colour(double part);
Svg draw(const HeatMap& map);

}  // namespace scrna::report
