// A number for every pair of classes as colour: confusions of a classifier, distances of labels. Rows have the names,
// columns their numbers, in the same order.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/report/svg.h"

namespace scrna::report {

struct MatrixCell {
  double part = 0;            // place on the colour scale (heat_colour), 0 to 1
  std::string text, tooltip;  // text: left out where cells are too small for it
};

struct SquareMatrix {
  std::string title, note;                                    // above it; note: in small letters
  std::vector<std::string> names;                             // of rows and columns
  std::vector<std::vector<std::optional<MatrixCell>>> cells;  // [rows][columns]; empty ones stay blank
};

Svg draw(const SquareMatrix& matrix);

}  // namespace scrna::report
