#include "lib/report/line_chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace scrna::report {
namespace {

constexpr double kLineHeight = 14;
constexpr double kLetterWidth = 6.4;  // of 12 units, roughly

double width_of(const std::string& text) {
  // UTF-8 continuation bytes take no room.
  const auto letters = std::ranges::count_if(
      text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
  return kLetterWidth * static_cast<double>(letters);
}

struct Label {
  double y = 0;
  const Series* series = nullptr;
};

// Moves labels apart, as little as needed, and keeps them within [top, bottom].
void spread(std::vector<Label>& labels, double top, double bottom) {
  std::ranges::sort(labels, {}, &Label::y);
  for (int pass = 0; pass < 50; ++pass) {
    bool moved = false;
    for (std::size_t i = 1; i < labels.size(); ++i) {
      const double gap = labels[i].y - labels[i - 1].y;
      if (gap >= kLineHeight - 0.01) continue;
      const double push = (kLineHeight - gap) / 2;
      labels[i - 1].y -= push, labels[i].y += push;
      moved = true;
    }
    if (!labels.empty()) {
      const double up = std::max(0.0, labels.back().y - bottom), down = std::max(0.0, top - labels.front().y);
      if (up > 0) labels.back().y -= up;
      if (down > 0) labels.front().y += down;
    }
    if (!moved) break;
  }
}

void draw_axes(const LineChart& chart, const Scale& x, const Scale& y, double left, double right,
               double bottom, Svg& svg) {
  for (const double tick : y.ticks(5)) {
    svg.line(left, y(tick), right, y(tick), "grid");
    svg.text(left - 6, y(tick) + 4, short_number(tick), "muted", Svg::Anchor::kEnd);
  }
  svg.line(left, bottom, right, bottom, "axis");
  for (const double tick : x.ticks(5)) {
    svg.line(x(tick), bottom, x(tick), bottom + 4, "axis");
    svg.text(x(tick), bottom + 17, short_number(tick), "muted", Svg::Anchor::kMiddle);
  }
  svg.text(right, bottom + 33, chart.x_label, "muted", Svg::Anchor::kEnd);
  svg.text(0, 14, chart.title, "title");
}

}  // namespace

Series thinned(const Series& series, int columns) {
  if (series.x.size() <= 4 * static_cast<std::size_t>(columns)) return series;
  Series result = series;
  result.x.clear(), result.y.clear();
  const std::size_t size = series.x.size();
  for (int column = 0; column < columns; ++column) {
    const std::size_t begin = size * static_cast<std::size_t>(column) / static_cast<std::size_t>(columns);
    const std::size_t end = size * (static_cast<std::size_t>(column) + 1) / static_cast<std::size_t>(columns);
    std::vector<std::size_t> kept{begin, end - 1};
    std::size_t low = begin, high = begin;
    for (std::size_t i = begin; i < end; ++i) {
      if (!std::isfinite(series.y[i])) kept.push_back(i);
      if (!(series.y[i] >= series.y[low])) low = i;
      if (!(series.y[i] <= series.y[high])) high = i;
    }
    kept.push_back(low), kept.push_back(high);
    std::ranges::sort(kept);
    const auto unique = std::ranges::unique(kept);
    kept.erase(unique.begin(), unique.end());
    for (const std::size_t i : kept) result.x.push_back(series.x[i]), result.y.push_back(series.y[i]);
  }
  return result;
}

Series binned(const Series& series, int count) {
  const std::size_t size = series.x.size();
  if (size <= static_cast<std::size_t>(count)) return series;
  Series result = series;
  result.x.clear(), result.y.clear();
  for (int bin = 0; bin < count; ++bin) {
    const std::size_t begin = size * static_cast<std::size_t>(bin) / static_cast<std::size_t>(count);
    const std::size_t end = size * (static_cast<std::size_t>(bin) + 1) / static_cast<std::size_t>(count);
    double x = 0, y = 0;
    for (std::size_t i = begin; i < end; ++i) x += series.x[i], y += series.y[i];
    result.x.push_back(x / static_cast<double>(end - begin)),
        result.y.push_back(y / static_cast<double>(end - begin));
  }
  return result;
}

Svg draw(const LineChart& chart) {
  std::vector<std::vector<double>> xs, ys;
  double label_width = 0;
  for (const Series& series : chart.series) {
    xs.push_back(series.x), ys.push_back(series.y);
    ys.push_back(series.low), ys.push_back(series.high);
    label_width = std::max(label_width, width_of(series.label));
  }
  std::vector<double> references;
  for (const ReferenceLine& reference : chart.references) references.push_back(reference.y);
  ys.push_back(references);
  const auto [x_low, x_high] = range_of(xs, chart.x_kind);
  auto [y_low, y_high] = range_of(ys, chart.y_kind);
  y_low = chart.y_low.value_or(y_low), y_high = chart.y_high.value_or(y_high);
  const double margin =
      chart.y_kind == ScaleKind::kLog ? std::pow(y_high / y_low, 0.04) : (y_high - y_low) * 0.04;
  if (chart.y_kind == ScaleKind::kLog) {
    y_low /= chart.y_low ? 1 : margin, y_high *= chart.y_high ? 1 : margin;
  } else {
    y_low -= chart.y_low ? 0 : margin, y_high += chart.y_high ? 0 : margin;
  }

  const double left = 62, top = 30, bottom = chart.height - 40;
  const double right = chart.width - std::clamp(label_width + 12, 24.0, chart.width * 0.42);
  const Scale x(chart.x_kind, x_low, x_high, left, right), y(chart.y_kind, y_low, y_high, bottom, top);
  Svg svg(chart.width, chart.height);
  draw_axes(chart, x, y, left, right, bottom, svg);
  for (const ReferenceLine& reference : chart.references) {
    svg.line(left, y.clamped(reference.y), right, y.clamped(reference.y), "reference");
    svg.text(left + 4, y.clamped(reference.y) - 4, reference.label, "muted small");
  }
  std::vector<Label> labels;
  for (const Series& whole : chart.series) {
    const auto pixels = static_cast<int>(right - left);
    const Series series = thinned(whole, chart.columns > 0 ? std::min(chart.columns, pixels) : pixels);
    const std::string colour = colour_class(whole.colour);
    const std::string css = colour + (whole.style.empty() ? "" : " ") + whole.style;
    if (whole.low.size() == whole.x.size() && whole.high.size() == whole.x.size()) {
      std::vector<std::pair<double, double>> low, high;
      for (std::size_t i = 0; i < whole.x.size(); ++i) {
        low.emplace_back(x(whole.x[i]), y.clamped(whole.low[i]));
        high.emplace_back(x(whole.x[i]), y.clamped(whole.high[i]));
      }
      svg.band(low, high, colour);
    }
    std::vector<std::pair<double, double>> points;
    for (std::size_t i = 0; i < series.x.size(); ++i)
      points.emplace_back(x(series.x[i]), y.clamped(series.y[i]));
    const std::string& tooltip = whole.tooltip.empty() ? whole.label : whole.tooltip;
    svg.path(points, css, tooltip);
    if (whole.has_dots) {
      for (std::size_t i = 0; i < points.size(); ++i) {
        if (std::isfinite(points[i].second)) {
          svg.dot(points[i].first, points[i].second, 2.6, css,
                  fmt::format("{}: {}", short_number(series.x[i]), short_number(series.y[i])));
        }
      }
    }
    const auto last = std::find_if(points.rbegin(), points.rend(),
                                   [](const auto& point) { return std::isfinite(point.second); });
    if (last == points.rend()) continue;
    if (whole.ends_in_cross)
      svg.cross(last->first, last->second, colour, tooltip + ": diverged");
    if (!whole.label.empty()) labels.push_back({last->second, &whole});
  }
  spread(labels, top + 2, bottom - 2);
  for (const Label& label : labels) {
    svg.text(right + 8, label.y + 4, label.series->label, colour_class(label.series->colour));
  }
  return svg;
}

}  // namespace scrna::report
