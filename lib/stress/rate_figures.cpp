#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "lib/report/line_chart.h"
#include "lib/stress/stress_figures.h"

namespace scrna::stress {
namespace {

using report::Figure;
using report::LineChart;
using report::ScaleKind;
using report::Series;

// What a figure over the learning rate shows of an arm.
struct RateChoice {
  const char* name;
  const char* title;
  const char* caption;
  ScaleKind kind;
  std::function<double(const ArmData&)> value_of;
};

double loss_of(const ArmData& arm) {
  if (!arm.diverged_step()) return arm.run.last_mean("loss");
  const report::Curve* loss = arm.run.find("loss");
  return loss == nullptr || loss->values.empty() ? std::nan("") : loss->values.front();
}

double jump_of(const ArmData& arm) {
  if (!std::isinf(arm.spike.ratio)) return arm.spike.ratio;
  const double factor = arm.run.number("monitor.explosion_factor");
  return factor > 0 ? factor : 1000;
}

const std::vector<RateChoice>& rate_choices() {
  static const std::vector<RateChoice> kChoices = {
      {"loss", "Final loss",
       "Mean of the last tenth of the steps; an arm that diverged stands at the loss it began with.",
       ScaleKind::kLinear, loss_of},
      {"jump", "Largest jump of the gradient norm",
       "Largest gradient norm over the running median of the steps before it; one that is not finite stands "
       "at "
       "monitor.explosion_factor.",
       ScaleKind::kLog, jump_of},
      {"score", "Largest |score| in layer 0", "Most of all steps, sampled queries.", ScaleKind::kLog,
       [](const ArmData& arm) { return arm.run.largest("max_score_per_layer/layer_00"); }}};
  return kChoices;
}

// What the paper's stress test does not do: "clipped", "QK-norm".
std::string short_treatment(const ArmGroup& group) {
  const ArmData& arm = *group.arms.front();
  std::string text;
  for (const auto& [is_so, word] :
       {std::pair{arm.is_clipped, "clipped"}, std::pair{arm.has_qk_norm, "QK-norm"},
        std::pair{!arm.has_default_bias, "other bias"}}) {
    if (is_so) text += (text.empty() ? "" : ", ") + std::string(word);
  }
  return text;
}

// The curve of one attention in one group, and a cross for each arm that diverged.
void add_rate_series(const ArmGroup& group, bool is_sigmoid, const std::string& style, bool names_treatment,
                     const RateChoice& choice, LineChart& chart) {
  std::map<double, std::vector<double>> values;
  const int colour = is_sigmoid ? kSigmoidColour : kSoftmaxColour;
  for (const ArmData* arm : group.of(is_sigmoid)) {
    if (!arm->has_ended()) continue;
    const double value = choice.value_of(*arm);
    values[arm->learning_rate].push_back(value);
    if (!arm->diverged_step()) continue;
    chart.series.push_back({.label = {},
                            .colour = colour,
                            .x = {arm->learning_rate},
                            .y = {value},
                            .style = {},
                            .ends_in_cross = true,
                            .tooltip = arm->name});
  }
  if (values.empty()) return;
  Series series{.label = is_sigmoid ? "sigmoid" : "softmax",
                .colour = colour,
                .x = {},
                .y = {},
                .style = style,
                .has_dots = true,
                .tooltip = {}};
  if (names_treatment && !group.is_plain) series.label += ", " + short_treatment(group);
  for (const auto& [rate, of_seeds] : values) {
    const Spread spread = spread_of(of_seeds);
    series.x.push_back(rate), series.y.push_back(spread.median);
    series.low.push_back(spread.least), series.high.push_back(spread.most);
  }
  chart.series.push_back(std::move(series));
}

std::optional<Figure> rate_figure(const std::vector<const ArmGroup*>& groups, const std::string& size,
                                  int number, const RateChoice& choice) {
  std::set<double> rates;
  std::size_t most_seeds = 1;
  for (const ArmGroup* group : groups) {
    rates.merge(group->rates());
    std::set<std::string> seeds;
    for (const ArmData* arm : group->arms) seeds.insert(arm->seed);
    most_seeds = std::max(most_seeds, seeds.size());
  }
  if (rates.size() < 2) return std::nullopt;
  LineChart chart{.title = choice.title + (size.empty() ? "" : ": " + size),
                  .x_label = "learning rate",
                  .x_kind = ScaleKind::kLog,
                  .y_kind = choice.kind,
                  .y_low = {},
                  .y_high = {},
                  .series = {},
                  .references = {},
                  .width = 400,
                  .height = 260};
  constexpr const char* kStyles[] = {"dashed", "dotted"};
  std::size_t num_treated = 0;
  for (const ArmGroup* group : groups) {
    const std::string style = group->is_plain ? "" : kStyles[num_treated++ % std::size(kStyles)];
    for (const bool is_sigmoid : {false, true})
      add_rate_series(*group, is_sigmoid, style, groups.size() > 1, choice, chart);
  }
  if (chart.series.empty()) return std::nullopt;
  if (std::string(choice.name) == "jump")
    chart.references.push_back({kJump, fmt::format("{:.0f} ×: a jump", kJump)});
  return Figure{fmt::format("rate-{}-{}", choice.name, number),
                fmt::format("{} {}Crosses: diverged.", number == 0 ? std::string(choice.caption) : size + ".",
                            most_seeds > 1 ? "Line: median of the seeds, band: their range. " : ""),
                report::draw(chart)};
}

}  // namespace

void add_rates(const std::vector<ArmGroup>& groups, report::Page& page) {
  std::vector<std::string> sizes;
  for (const ArmGroup& group : groups) {
    if (std::ranges::find(sizes, group.size) == sizes.end()) sizes.push_back(group.size);
  }
  std::vector<Figure> figures;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    std::vector<const ArmGroup*> members;
    for (const ArmGroup& group : groups) {
      if (group.size == sizes[i]) members.push_back(&group);
    }
    for (const RateChoice& choice : rate_choices()) {
      if (auto figure = rate_figure(members, sizes[i], static_cast<int>(i), choice))
        figures.push_back(std::move(*figure));
    }
  }
  if (figures.empty()) return;
  page.heading("What the learning rate does");
  page.figures(std::move(figures), report::Page::Width::kThird);
}

}  // namespace scrna::stress
