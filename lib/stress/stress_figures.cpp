#include "lib/stress/stress_figures.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <tuple>

#include <fmt/format.h>

#include "lib/report/figures.h"
#include "lib/report/scale.h"

namespace scrna::stress {
namespace {

using report::Figure;
using report::LineChart;
using report::ScaleKind;
using report::Series;
using report::short_number;

constexpr std::size_t kMostNamedArms = 8;
constexpr int kTrendPoints = 160;
// Points of all curves of a page: so many columns of up to four for each curve, that 144 arms stay below 2
// MB.
constexpr int kColumnsOfAllArms = 12000, kFewestColumns = 40, kMostColumns = 400;

int columns_for(std::size_t num_arms) {
  return std::clamp(kColumnsOfAllArms / std::max(1, static_cast<int>(num_arms)), kFewestColumns,
                    kMostColumns);
}

struct Panel {
  const char* name;
  const char* title;
  const char* caption;
  const char* key;
  ScaleKind kind;
  bool is_trend;
};
constexpr Panel kPanels[] = {
    {"loss", "Training loss, nats per masked gene",
     "Means of neighbouring steps; the axis ends at one and a half times the loss of the beginning.", "loss",
     ScaleKind::kLinear, true},
    {"grad-norm", "Gradient norm before clipping", "Global L2 norm of every step.", "grad_norm",
     ScaleKind::kLog, false},
    {"max-score", "Largest |score| in layer 0", "Of sampled queries, after scaling, before the bias.",
     "max_score_per_layer/layer_00", ScaleKind::kLog, false}};

// The highest loss that an arm began with, 1.5 times: beyond it a loss says no more.
double most_loss(const std::vector<const ArmData*>& arms) {
  double start = 0;
  for (const ArmData* arm : arms) {
    const report::Curve* loss = arm->run.find("loss");
    if (loss != nullptr && std::isfinite(loss->values.front())) start = std::max(start, loss->values.front());
  }
  return 1.5 * start;
}

Series series_of(const ArmData& arm, const Panel& panel, const report::Curve& curve) {
  Series series{.label = {},
                .x = curve.steps,
                .y = curve.values,
                .style = "thin",
                .ends_in_cross = arm.diverged_step().has_value(),
                .has_dots = curve.steps.size() <= 12,
                .tooltip = arm.name};
  return panel.is_trend ? report::binned(series, kTrendPoints) : series;
}

LineChart chart_of(const Panel& panel, const std::string& suffix, std::size_t num_arms) {
  return {.title = panel.title + suffix,
          .y_kind = panel.kind,
          .y_low = {},
          .y_high = {},
          .series = {},
          .references = {},
          .columns = columns_for(num_arms)};
}

// The range of all curves, for charts that shall have the same axis.
void fix_axis(const Panel& panel, const std::vector<const ArmData*>& arms, LineChart& one, LineChart& two) {
  std::vector<std::vector<double>> values;
  for (const LineChart* chart : {&one, &two})
    for (const Series& series : chart->series) values.push_back(series.y);
  auto [low, high] = report::range_of(values, panel.kind);
  if (panel.is_trend) {
    high = std::min(high, most_loss(arms));
    const double margin = 0.04 * (high - low);
    low -= margin, high += margin;
  } else {
    const double margin = std::pow(high / low, 0.04);
    low /= margin, high *= margin;
  }
  for (LineChart* chart : {&one, &two}) {
    if (low < high) chart->y_low = low, chart->y_high = high;
  }
}

std::vector<Figure> few_panels(const std::vector<ArmData>& arms) {
  std::vector<Figure> figures;
  std::vector<const ArmData*> all;
  for (const ArmData& arm : arms) all.push_back(&arm);
  for (const Panel& panel : kPanels) {
    LineChart chart = chart_of(panel, "", arms.size());
    for (const ArmData& arm : arms) {
      const report::Curve* curve = arm.run.find(panel.key);
      if (curve == nullptr) continue;
      Series series = series_of(arm, panel, *curve);
      series.label = arm.name;
      series.colour = arm.is_sigmoid ? kSigmoidColour : kSoftmaxColour;
      if (arms.size() <= 2) series.style.clear();
      chart.series.push_back(std::move(series));
    }
    if (chart.series.empty()) continue;
    LineChart none = chart_of(panel, "", 1);
    fix_axis(panel, all, chart, none);
    figures.push_back({fmt::format("panel-{}", panel.name),
                       std::string(panel.caption) + " A cross marks where an arm diverged.",
                       report::draw(chart)});
  }
  return figures;
}

// Softmax and sigmoid side by side, a colour for each learning rate.
std::vector<Figure> panels_of(const ArmGroup& group, std::size_t number, std::size_t num_arms) {
  std::vector<Figure> figures;
  const std::set<double> rates = group.rates();
  for (const Panel& panel : kPanels) {
    LineChart charts[2] = {chart_of(panel, ": softmax", num_arms), chart_of(panel, ": sigmoid", num_arms)};
    for (const bool is_sigmoid : {false, true}) {
      std::set<double> named;
      for (const ArmData* arm : group.of(is_sigmoid)) {
        const report::Curve* curve = arm->run.find(panel.key);
        if (curve == nullptr) continue;
        Series series = series_of(*arm, panel, *curve);
        const auto place = std::distance(rates.begin(), rates.find(arm->learning_rate));
        series.colour = report::ramp_colour(static_cast<std::size_t>(place), rates.size());
        if (named.insert(arm->learning_rate).second) series.label = short_number(arm->learning_rate);
        charts[is_sigmoid ? 1 : 0].series.push_back(std::move(series));
      }
    }
    fix_axis(panel, group.arms, charts[0], charts[1]);
    for (const bool is_sigmoid : {false, true}) {
      const LineChart& chart = charts[is_sigmoid ? 1 : 0];
      if (chart.series.empty()) continue;
      figures.push_back(
          {fmt::format("panel-{}-{}-{}", panel.name, is_sigmoid ? "sigmoid" : "softmax", number),
           fmt::format("{} {} A curve an arm, the colour its learning rate; a cross: diverged.",
                       group.name() + ".", panel.caption),
           report::draw(chart)});
    }
  }
  return figures;
}

double largest_jump(const ArmGroup& group) {
  double most = 0;
  for (const ArmData* arm : group.arms)
    most = std::max(most, std::isnan(arm->spike.ratio) ? 0 : arm->spike.ratio);
  return most;
}

}  // namespace

void add_panels(const std::vector<ArmData>& arms, const std::vector<ArmGroup>& groups, report::Page& page) {
  page.heading("Loss, gradient norm and scores");
  if (arms.size() <= kMostNamedArms) {
    page.figures(few_panels(arms));
    return;
  }
  const auto open = std::ranges::max_element(groups, {}, [](const ArmGroup& group) {
    return std::pair(group.is_plain, largest_jump(group));  // the first of the largest
  });
  page.paragraph(groups.size() == 1
                     ? open->name()
                     : fmt::format("{}: where the gradient norm jumped most{}. The other settings are folded "
                                   "away below.",
                                   open->name(), open->is_plain ? " without clipping" : ""),
                 "muted");
  page.figures(panels_of(*open, static_cast<std::size_t>(open - groups.begin()), arms.size()));
  for (std::size_t i = 0; i < groups.size(); ++i) {
    if (&groups[i] == &*open) continue;
    page.fold(fmt::format("{}: {} arms", groups[i].name(), groups[i].arms.size()),
              [&] { page.figures(panels_of(groups[i], i, arms.size())); });
  }
}

void add_layers(const std::vector<ArmData>& arms, report::Page& page) {
  std::vector<Figure> figures;
  int number = 0;
  for (const bool is_sigmoid : {false, true}) {
    const auto rank = [&](const ArmData& arm) {
      return std::tuple(arm.is_sigmoid == is_sigmoid && arm.has_ended(), arm.diverged_step().has_value(),
                        std::isnan(arm.spike.ratio) ? 0 : arm.spike.ratio);
    };
    const auto arm = std::ranges::max_element(arms, {}, rank);
    if (arm == arms.end() || arm->is_sigmoid != is_sigmoid || !arm->has_ended()) continue;
    for (const auto& [key, title, name] :
         {std::tuple{"grad_norm_per_layer", "Gradient norm", "grad-norm"},
          std::tuple{"max_score_per_layer", "Largest |score|", "max-score"}}) {
      if (auto figure = report::layer_figure(arm->run, key, fmt::format("{}: {}", title, arm->name),
                                             fmt::format("layers-{}-{}", name, number),
                                             "By layer over time, logarithmic."))
        figures.push_back(std::move(*figure));
    }
    if (auto figure = report::jacobian_figure(arm->run, fmt::format("jacobian-{}", number)))
      figures.push_back(std::move(*figure));
    ++number;
  }
  if (figures.empty()) return;
  page.heading("Layer by layer");
  page.paragraph("Of the softmax and the sigmoid arm that diverged, or whose gradient norm jumped most.",
                 "muted");
  page.figures(std::move(figures));
}

}  // namespace scrna::stress
