#include "lib/report/heat_map.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

#include "lib/report/scale.h"

namespace scrna::report {

std::string heat_colour(double part) {
  constexpr std::array<std::array<double, 3>, 5> kStops = {
      {{40, 34, 98}, {48, 92, 140}, {38, 148, 132}, {122, 202, 78}, {250, 230, 60}}};
  const double place = std::clamp(part, 0.0, 1.0) * (kStops.size() - 1);
  const auto index = std::min<std::size_t>(static_cast<std::size_t>(place), kStops.size() - 2);
  const double between = place - static_cast<double>(index);
  std::array<int, 3> rgb{};
  for (std::size_t i = 0; i < 3; ++i) {
    rgb[i] = static_cast<int>(std::lround(kStops[index][i] * (1 - between) + kStops[index + 1][i] * between));
  }
  return fmt::format("#{:02x}{:02x}{:02x}", rgb[0], rgb[1], rgb[2]);
}

Svg draw(const HeatMap& map) {
  constexpr double kRow = 15, kLeft = 82, kTop = 26, kRight = 96;
  const auto num_rows = static_cast<double>(map.rows.size());
  const double bottom = kTop + kRow * num_rows, right = map.width - kRight;
  Svg svg(map.width, bottom + 40);
  svg.text(0, 14, map.title, "title");
  const auto [low, high] = range_of(map.values, ScaleKind::kLog);
  const Scale part(ScaleKind::kLog, low, high, 0, 1);
  const std::size_t size = map.x.size();
  const auto columns = std::min<std::size_t>(size, kHeatMapColumns);
  const double column_width = (right - kLeft) / static_cast<double>(std::max<std::size_t>(1, columns));
  for (std::size_t row = 0; row < map.rows.size(); ++row) {
    const double y = bottom - kRow * static_cast<double>(row + 1);
    svg.text(kLeft - 6, y + 11, map.rows[row], "muted small", Svg::Anchor::kEnd);
    for (std::size_t column = 0; column < columns; ++column) {
      const std::size_t begin = size * column / columns, end = size * (column + 1) / columns;
      double value = 0;
      bool is_finite = true;
      for (std::size_t i = begin; i < end; ++i) {
        if (!std::isfinite(map.values[row][i])) is_finite = false;
        else value = std::max(value, map.values[row][i]);
      }
      const std::string colour = !is_finite ? heat_colour(1) : value > 0 ? heat_colour(part(value)) : heat_colour(0);
      const double x = kLeft + column_width * static_cast<double>(column);
      svg.rectangle(x, y, column_width + 0.3, kRow - 1, "cell", colour,
                    fmt::format("{}, step {}: {}", map.rows[row], short_number(map.x[end - 1]), is_finite ? short_number(value) : "not finite"));
      if (!is_finite) svg.cross(x + column_width / 2, y + kRow / 2, "s5");
    }
  }
  const Scale x(ScaleKind::kLinear, size > 0 ? map.x.front() : 0, size > 0 ? map.x.back() : 1, kLeft, right);
  for (const double tick : x.ticks(5)) svg.text(x(tick), bottom + 15, short_number(tick), "muted", Svg::Anchor::kMiddle);
  svg.text(right, bottom + 31, "step", "muted", Svg::Anchor::kEnd);
  const double legend_height = std::max(60.0, kRow * num_rows);
  constexpr int kSteps = 24;
  for (int i = 0; i < kSteps; ++i) {
    svg.rectangle(right + 12, kTop + legend_height * (1 - (i + 1.0) / kSteps), 10, legend_height / kSteps + 0.4, "cell",
                  heat_colour((i + 0.5) / kSteps));
  }
  svg.text(right + 26, kTop + 10, short_number(part.high()), "muted small");
  svg.text(right + 26, kTop + legend_height, short_number(part.low()), "muted small");
  return svg;
}

}  // namespace scrna::report
