#include "lib/report/square_matrix.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/report/heat_map.h"

namespace scrna::report {
namespace {

constexpr double kTop = 42, kMostLeft = 260, kLetter = 7.4;  // pixels; letters of the widest common font
constexpr double kLeastCellWithText = 26;
/// Parts of the colour scale above it are too bright for white text.
constexpr double kBright = 0.55;

}  // namespace

Svg draw(const SquareMatrix& matrix) {
  const std::size_t count = matrix.names.size();
  std::size_t longest = 0;
  for (const std::string& name : matrix.names) longest = std::max(longest, name.size());
  const double left = std::min(kMostLeft, kLetter * static_cast<double>(longest + 3) + 8);
  const double cell = std::clamp(440.0 / static_cast<double>(std::max<std::size_t>(1, count)), 14.0, 46.0);
  const double size = cell * static_cast<double>(count);
  Svg svg(left + size + 8, kTop + size + 8);
  if (!matrix.title.empty()) svg.text(0, 14, matrix.title, "title");
  const double behind_title = matrix.title.empty() ? 0 : kLetter * static_cast<double>(matrix.title.size()) + 16;
  if (!matrix.note.empty()) svg.text(behind_title, 14, matrix.note, "muted small");
  for (std::size_t row = 0; row < count; ++row) {
    const double y = kTop + cell * static_cast<double>(row);
    svg.text(left + cell * (static_cast<double>(row) + 0.5), kTop - 6, std::to_string(row + 1), "muted small",
             Svg::Anchor::kMiddle);
    svg.text(left - 6, y + cell / 2 + 4, fmt::format("{} {}", matrix.names[row], row + 1), "muted small", Svg::Anchor::kEnd);
    for (std::size_t column = 0; column < count; ++column) {
      const std::optional<MatrixCell>& content = matrix.cells[row][column];
      if (!content) continue;
      const double x = left + cell * static_cast<double>(column);
      svg.rectangle(x, y, cell - 1, cell - 1, "cell", heat_colour(content->part), content->tooltip);
      if (cell >= kLeastCellWithText && !content->text.empty())
        svg.text(x + cell / 2, y + cell / 2 + 4, content->text,
                 content->part > kBright ? "inside bright small" : "inside small", Svg::Anchor::kMiddle);
    }
  }
  return svg;
}

}  // namespace scrna::report
