#include "lib/report/bars.h"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "lib/report/line_chart.h"

namespace scrna::report {

Svg draw(const StackedBars& bars) {
  constexpr double kRow = 24, kTop = 48, kLabel = 150;
  Svg svg(bars.width, kTop + kRow * static_cast<double>(bars.rows.size()) + 8);
  svg.text(0, 14, bars.title, "title");
  double x = 0;
  for (std::size_t part = 0; part < bars.parts.size(); ++part) {
    svg.rectangle(x, 25, 10, 10, fmt::format("fill s{}", part % kNumColours));
    svg.text(x + 14, 34, bars.parts[part], "muted small");
    x += 22 + 6.3 * static_cast<double>(bars.parts[part].size());
  }
  for (std::size_t row = 0; row < bars.rows.size(); ++row) {
    const auto& [label, values] = bars.rows[row];
    const double y = kTop + kRow * static_cast<double>(row);
    const double total = std::accumulate(values.begin(), values.end(), 0.0);
    svg.text(kLabel - 8, y + 14, label, "small", Svg::Anchor::kEnd);
    double at = kLabel;
    for (std::size_t part = 0; part < values.size() && total > 0; ++part) {
      const double share = values[part] / total, width = share * (bars.width - kLabel);
      svg.rectangle(at, y + 2, width, kRow - 7, fmt::format("fill s{}", part % kNumColours), {},
                    fmt::format("{}: {} {:.1f} %", label, bars.parts[part], 100 * share));
      if (share > 0.08) svg.text(at + width / 2, y + 15, fmt::format("{:.0f} %", 100 * share), "small inside", Svg::Anchor::kMiddle);
      at += width;
    }
  }
  return svg;
}

Svg draw(const Histogram& histogram) {
  LineChart chart{.title = histogram.title, .x_label = histogram.x_label, .x_kind = ScaleKind::kLog, .y_low = 0, .y_high = {},
                  .series = {}, .references = {}, .width = histogram.width, .height = histogram.height};
  for (const Histogram::Counts& set : histogram.sets) {
    const double total = std::accumulate(set.counts.begin(), set.counts.end(), 0.0);
    Series series{.label = set.label, .colour = set.colour, .x = {}, .y = {}, .style = {}, .tooltip = {}};
    if (!histogram.edges.empty()) series.x.push_back(histogram.edges.front()), series.y.push_back(0);
    for (std::size_t bin = 0; bin < set.counts.size(); ++bin) {  // a staircase
      const double share = total > 0 ? 100 * set.counts[bin] / total : 0;
      series.x.push_back(histogram.edges[bin]), series.y.push_back(share);
      series.x.push_back(histogram.edges[bin + 1]), series.y.push_back(share);
    }
    if (!histogram.edges.empty()) series.x.push_back(histogram.edges.back()), series.y.push_back(0);
    chart.series.push_back(std::move(series));
  }
  return draw(chart);
}

}  // namespace scrna::report
