#include "lib/report/figures.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>

#include "lib/report/bars.h"
#include "lib/report/heat_map.h"

namespace scrna::report {
namespace {

constexpr int kTrendPoints = 240;

bool has_value(const Curve* curve) {
  return curve != nullptr && std::ranges::any_of(curve->values, [](double value) { return std::isfinite(value); });
}

Series series_of(const RunData& run, const RunStyle& style, const Curve& curve) {
  return {.label = style.label,
          .colour = style.colour,
          .x = curve.steps,
          .y = curve.values,
          .style = style.style,
          .ends_in_cross = run.end().has_value(),
          .has_dots = curve.steps.size() <= 12,
          .tooltip = run.name};
}

}  // namespace

std::vector<RunStyle> plain_styles(const std::vector<RunData>& runs) {
  std::vector<RunStyle> styles;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    styles.push_back({.label = runs.size() == 1 ? "" : runs[i].name, .colour = static_cast<int>(i), .style = i >= kNumColours ? "dashed" : ""});
  }
  return styles;
}

std::optional<Figure> curve_figure(const std::vector<RunData>& runs, const std::vector<RunStyle>& styles, const CurveChoice& choice,
                                   std::vector<ReferenceLine> references) {
  LineChart chart{.title = choice.title, .y_kind = choice.kind, .y_low = {}, .y_high = {}, .series = {}, .references = std::move(references)};
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const Curve* curve = runs[i].find(choice.key);
    if (!has_value(curve)) continue;
    Series series = series_of(runs[i], styles[i], *curve);
    if (choice.trend && runs.size() == 1 && series.x.size() > kTrendPoints) {
      Series every = series;
      every.style = "faint";
      every.label.clear();
      every.ends_in_cross = false;
      chart.series.push_back(std::move(every));
    }
    chart.series.push_back(choice.trend ? binned(series, kTrendPoints) : series);
  }
  if (chart.series.empty()) return std::nullopt;
  std::vector<std::vector<double>> values;
  for (const Series& series : chart.series) values.push_back(series.y);
  const auto [low, high] = range_of(values, choice.kind);
  if (choice.y_high && low < *choice.y_high && high > *choice.y_high) chart.y_high = choice.y_high;
  return Figure{choice.name, choice.caption, draw(chart)};
}

std::optional<Figure> heldout_figure(const std::vector<RunData>& runs, const std::vector<RunStyle>& styles) {
  std::vector<ReferenceLine> references;
  for (const auto& [key, label] : {std::pair{"heldout_uniform_loss", "guessing blindly"}, std::pair{"heldout_gene_frequency_loss", "gene frequencies"}}) {
    std::set<double> values;
    for (const RunData& run : runs) {
      if (const Curve* curve = run.find(key); has_value(curve)) values.insert(std::round(curve->values.back() * 1e4) / 1e4);
    }
    if (values.size() == 1) references.push_back({*values.begin(), label});  // runs on other data have others
  }
  return curve_figure(runs, styles,
                      {.name = "heldout-loss",
                       .title = "Held-out loss, nats per masked gene",
                       .caption = "On cells that were never trained on; dashed: what it costs to predict every gene alike, and each by its frequency.",
                       .key = "heldout_loss",
                       .trend = false},
                      std::move(references));
}

std::optional<Figure> layer_figure(const RunData& run, const std::string& key, const std::string& title, const std::string& name,
                                   const std::string& caption) {
  HeatMap map{.title = title, .rows = run.layers_of(key), .x = {}, .values = {}};
  if (map.rows.empty()) return std::nullopt;
  for (const std::string& layer : map.rows) {
    const Curve& curve = run.curves.at(key + "/" + layer);
    if (map.x.empty()) map.x = curve.steps;
    if (curve.steps.size() != map.x.size()) return std::nullopt;  // layers of different runs in one file
    map.values.push_back(curve.values);
  }
  return Figure{name, caption, draw(map)};
}

std::optional<Figure> jacobian_figure(const RunData& run, const std::string& name) {
  LineChart chart{.title = "Derivative of attention in its scores", .y_kind = ScaleKind::kLog, .y_low = {}, .y_high = {}, .series = {},
                  .references = {{0.25, "¼: bound of the sigmoid's entries"}}};
  const auto over_layers = [&](const std::string& key, bool is_maximum) {
    Curve all;
    for (const std::string& layer : run.layers_of(key)) {
      const Curve& curve = run.curves.at(key + "/" + layer);
      if (all.steps.empty()) all = {curve.steps, std::vector<double>(curve.steps.size(), 0)};
      for (std::size_t i = 0; i < std::min(all.values.size(), curve.values.size()); ++i) {
        all.values[i] = is_maximum ? std::max(all.values[i], curve.values[i]) : all.values[i] + curve.values[i];
      }
    }
    const auto layers = static_cast<double>(std::max<std::size_t>(1, run.layers_of(key).size()));
    if (!is_maximum) for (double& value : all.values) value /= layers;
    return all;
  };
  for (const auto& [kind, colour] : {std::pair{"sigmoid", 0}, std::pair{"softmax", 1}}) {
    for (const bool is_maximum : {false, true}) {
      const Curve curve = over_layers(fmt::format("{}_jacobian_{}_per_layer", kind, is_maximum ? "max" : "norm"), is_maximum);
      if (!has_value(&curve)) return std::nullopt;
      chart.series.push_back({.label = fmt::format("{} {}", kind, is_maximum ? "largest" : "norm"), .colour = colour, .x = curve.steps, .y = curve.values,
                              .style = is_maximum ? "dashed" : "", .tooltip = {}});
    }
  }
  // Saturated rows have derivatives of nothing at all; four decades show what matters.
  constexpr double kLowest = 1e-4;
  std::vector<std::vector<double>> values;
  for (const Series& series : chart.series) values.push_back(series.y);
  if (range_of(values, ScaleKind::kLog).first < kLowest) chart.y_low = kLowest;
  return Figure{name,
                fmt::format("{}: at the scores of this run's sampled queries, the Jacobian of a row's weights were they sigmoid(s − log n) or "
                            "softmax(s): mean Frobenius norm over rows, heads and layers, and the largest entry of all. The sigmoid's is diagonal; "
                            "softmax's is dense.",
                            run.name),
                draw(chart)};
}

std::optional<Figure> phases_figure(const std::vector<RunData>& runs) {
  constexpr std::pair<const char*, const char*> kPhases[] = {{"seconds_forward", "forward"}, {"seconds_backward", "backward"},
                                                             {"seconds_reduce", "reduce"}, {"seconds_optimizer", "optimizer"},
                                                             {"seconds_idle", "waiting"}};
  StackedBars bars{.title = "Where the time of a step goes", .parts = {}, .rows = {}};
  for (const auto& [key, name] : kPhases) bars.parts.emplace_back(name);
  for (const RunData& run : runs) {
    StackedBars::Row row{run.name, {}};
    for (const auto& [key, name] : kPhases) {
      double sum = 0;
      if (const Curve* curve = run.find(key)) {
        for (const double value : curve->values) sum += std::isfinite(value) ? value : 0;
      }
      row.values.push_back(sum);
    }
    if (run.find("seconds_forward") != nullptr) bars.rows.push_back(std::move(row));
  }
  if (bars.rows.empty()) return std::nullopt;
  return Figure{"phases", "Shares of all steps by the device's clock; waiting: the device had nothing to do.", draw(bars)};
}

std::optional<Figure> lengths_figure(const std::vector<RunData>& runs, const std::vector<RunStyle>& styles) {
  Histogram histogram{.title = "Lengths of the cells trained on, % of cells", .x_label = "tokens", .edges = {}, .sets = {}};
  std::set<std::vector<double>> seen;  // runs on the same data draw the same outline
  for (std::size_t i = 0; i < runs.size(); ++i) {
    if (runs[i].length_counts.empty()) continue;
    if (histogram.edges.size() < runs[i].length_edges.size()) histogram.edges = runs[i].length_edges;
    if (seen.insert(runs[i].length_counts).second) {
      histogram.sets.push_back({.label = styles[i].label, .colour = styles[i].colour, .counts = runs[i].length_counts});
    }
  }
  if (histogram.sets.empty()) return std::nullopt;
  if (histogram.sets.size() == 1) histogram.sets[0].label.clear();
  return Figure{"lengths", "Tokens of a cell after the tokenizer cut it to tokenizer.max_tokens, in half octaves.", draw(histogram)};
}

Table settings_that_differ(const std::vector<RunData>& runs) {
  Table table{.head = {"setting"}, .rows = {}};
  for (const RunData& run : runs) table.head.push_back(run.name);
  std::vector<std::string> paths;
  for (const RunData& run : runs) {
    for (const auto& [path, value] : run.config) {
      if (path != "run.dir" && std::ranges::find(paths, path) == paths.end()) paths.push_back(path);
    }
  }
  for (const std::string& path : paths) {
    std::set<std::string> values;
    for (const RunData& run : runs) values.insert(run.setting(path));
    if (values.size() < 2) continue;
    std::vector<Table::Cell> row{{path, ""}};
    for (const RunData& run : runs) row.push_back({run.setting(path), ""});
    table.rows.push_back(std::move(row));
  }
  return table;
}

Table::Cell status_of(const RunData& run) {
  if (const auto end = run.end()) return {fmt::format("diverged at step {}", short_number(static_cast<double>(end->step))), "bad"};
  if (run.is_finished()) return {"finished", "good"};
  return {fmt::format("at step {} of {}", run.steps_done, run.setting("train.steps")), "muted"};
}

}  // namespace scrna::report
