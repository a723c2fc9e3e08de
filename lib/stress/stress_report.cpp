#include "lib/stress/stress_report.h"

#include <algorithm>
#include <functional>
#include <tuple>
#include <cmath>
#include <map>
#include <set>

#include <fmt/format.h>

#include "lib/report/figures.h"
#include "lib/report/run_report.h"

namespace scrna::stress {
namespace {

using report::Figure;
using report::LineChart;
using report::ScaleKind;
using report::Series;
using report::short_number;
using report::Table;

constexpr std::size_t kMostLabels = 8;  // curves named one by one; more are named by their kind

// What an arm is besides learning rate, seed and size: its colour.
std::string kind_of(const ArmData& arm) {
  std::string kind = arm.is_sigmoid ? "sigmoid" : "softmax";
  if (arm.is_clipped) kind += ", clipped";
  if (arm.has_qk_norm) kind += ", QK-norm";
  if (!arm.has_default_bias) kind += ", bias 0";
  return kind;
}

// Settings of size in which the arms differ: one figure of learning rates for each.
std::string size_of(const ArmData& arm, const std::vector<ArmData>& arms) {
  std::string text;
  for (const auto& [path, word] : {std::pair{"model.width", "width"}, std::pair{"model.num_layers", "layers"}, std::pair{"tokenizer.max_tokens", "context"}}) {
    std::set<std::string> values;
    for (const ArmData& other : arms) values.insert(other.run.setting(path));
    if (values.size() > 1) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", word, arm.run.setting(path));
  }
  return text;
}

class Colours {
 public:
  explicit Colours(const std::vector<ArmData>& arms) {
    kinds_ = {"sigmoid", "softmax"};  // always the same two colours
    for (const ArmData& arm : arms) {
      if (std::ranges::find(kinds_, kind_of(arm)) == kinds_.end()) kinds_.push_back(kind_of(arm));
    }
  }
  [[nodiscard]] int operator[](const ArmData& arm) const { return static_cast<int>(std::ranges::find(kinds_, kind_of(arm)) - kinds_.begin()); }

 private:
  std::vector<std::string> kinds_;
};

std::vector<report::RunStyle> styles_of(const std::vector<ArmData>& arms, const Colours& colours) {
  std::vector<report::RunStyle> styles;
  std::set<std::string> named;
  for (const ArmData& arm : arms) {
    const bool is_named = arms.size() <= kMostLabels || named.insert(kind_of(arm)).second;
    styles.push_back({.label = !is_named ? "" : arms.size() <= kMostLabels ? arm.name : kind_of(arm), .colour = colours[arm], .style = arms.size() > 2 ? "thin" : ""});
  }
  return styles;
}

std::vector<Figure> panels(const std::vector<ArmData>& arms, const Colours& colours) {
  std::vector<report::RunData> runs;
  for (const ArmData& arm : arms) runs.push_back(arm.run);
  const std::vector<report::RunStyle> styles = styles_of(arms, colours);
  std::vector<Figure> figures;
  double start = 0;  // the highest loss that an arm began with
  for (const report::RunData& run : runs) {
    if (const report::Curve* loss = run.find("loss"); loss != nullptr && std::isfinite(loss->values.front())) start = std::max(start, loss->values.front());
  }
  for (const report::CurveChoice& choice : {
           report::CurveChoice{.name = "panel-loss", .title = "Training loss, nats per masked gene", .caption = "Means of neighbouring steps; the axis ends at one and a half times the loss of the beginning. A cross marks where an arm diverged.",
                               .key = "loss", .y_high = 1.5 * start},
           report::CurveChoice{.name = "panel-grad-norm", .title = "Gradient norm before clipping", .caption = "Global L2 norm of every step.", .key = "grad_norm", .kind = ScaleKind::kLog, .trend = false},
           report::CurveChoice{.name = "panel-max-score", .title = "Largest |score| in layer 0", .caption = "Of sampled queries, after scaling, before the bias.", .key = "max_score_per_layer/layer_00",
                               .kind = ScaleKind::kLog, .trend = false}}) {
    if (auto figure = report::curve_figure(runs, styles, choice)) figures.push_back(std::move(*figure));
  }
  return figures;
}

// y over the learning rate, one curve for each kind: mean of the seeds, each seed a dot; diverged arms at the top.
std::optional<Figure> rate_figure(const std::vector<ArmData>& arms, const Colours& colours, const std::string& name, const std::string& title,
                                  const std::string& caption, ScaleKind kind, const std::function<double(const ArmData&)>& value_of) {
  std::set<double> rates;
  for (const ArmData& arm : arms) rates.insert(arm.learning_rate);
  if (rates.size() < 2) return std::nullopt;
  LineChart chart{.title = title, .x_label = "learning rate", .x_kind = ScaleKind::kLog, .y_kind = kind, .y_low = {}, .y_high = {}, .series = {}, .references = {}};
  std::map<std::string, std::vector<const ArmData*>> by_kind;
  for (const ArmData& arm : arms) by_kind[kind_of(arm)].push_back(&arm);
  for (const auto& [label, members] : by_kind) {
    std::map<double, std::vector<double>> values;
    for (const ArmData* arm : members) {
      values[arm->learning_rate].push_back(value_of(*arm));
      if (!arm->diverged_step()) continue;
      chart.series.push_back({.label = {}, .colour = colours[*arm], .x = {arm->learning_rate}, .y = {value_of(*arm)}, .style = {}, .ends_in_cross = true, .tooltip = arm->name});
    }
    Series mean{.label = label, .colour = colours[*members.front()], .x = {}, .y = {}, .style = {}, .tooltip = {}};
    Series dots{.label = {}, .colour = mean.colour, .x = {}, .y = {}, .style = "thin", .has_dots = true, .tooltip = label};
    for (const auto& [rate, of_seeds] : values) {
      double sum = 0;
      for (const double value : of_seeds) {
        sum += value;
        dots.x.push_back(rate), dots.y.push_back(value);
        dots.x.push_back(rate), dots.y.push_back(std::nan(""));  // no line between seeds
      }
      mean.x.push_back(rate), mean.y.push_back(sum / static_cast<double>(of_seeds.size()));
    }
    chart.series.push_back(std::move(mean));
    chart.series.push_back(std::move(dots));
  }
  return Figure{name, caption, draw(chart)};
}

void add_rates(const std::vector<ArmData>& arms, const Colours& colours, report::Page& page) {
  std::map<std::string, std::vector<ArmData>> by_size;
  for (const ArmData& arm : arms) {
    if (arm.has_ended()) by_size[size_of(arm, arms)].push_back(arm);
  }
  std::vector<Figure> figures;
  int number = 0;
  for (const auto& [size, members] : by_size) {
    const std::string suffix = size.empty() ? "" : ": " + size;
    // What a run that diverged ends with is not its loss: the mean of the first ten steps, where it was left to go nowhere.
    const auto loss_of = [](const ArmData& arm) {
      if (!arm.diverged_step()) return arm.run.last_mean("loss");
      const report::Curve* loss = arm.run.find("loss");
      return loss == nullptr || loss->values.empty() ? std::nan("") : loss->values.front();
    };
    const auto score_of = [](const ArmData& arm) { return arm.run.largest("max_score_per_layer/layer_00"); };
    for (auto figure : {rate_figure(members, colours, fmt::format("rate-loss-{}", number), "Final loss" + suffix,
                                    "Mean of the last tenth of the steps; an arm that diverged stands at the loss it began with. Line: mean over seeds, dots: seeds, crosses: diverged.",
                                    ScaleKind::kLinear, loss_of),
                        rate_figure(members, colours, fmt::format("rate-score-{}", number), "Largest |score| in layer 0" + suffix,
                                    "Most of all steps, sampled queries; crosses: diverged.", ScaleKind::kLog, score_of)}) {
      if (figure) figures.push_back(std::move(*figure));
    }
    ++number;
  }
  if (figures.empty()) return;
  page.heading("What the learning rate does");
  page.figures(std::move(figures));
}

Table arms_table(const std::vector<ArmData>& arms) {
  Table table{.head = {"arm", "attention", "state", "learning rate", "seed", "clip", "diverged at", "steps", "loss", "median norm", "largest norm", "largest score", "hours"},
              .rows = {}, .num_text_columns = 3};
  for (const ArmData& arm : arms) {
    std::vector<double> norms;
    if (const report::Curve* curve = arm.run.find("grad_norm")) {
      std::ranges::copy_if(curve->values, std::back_inserter(norms), [](double value) { return std::isfinite(value); });
    }
    std::ranges::sort(norms);
    const auto step = arm.diverged_step();
    const double loss = arm.run.last_mean("loss");
    table.rows.push_back({{arm.name, ""}, {kind_of(arm), ""}, report::status_of(arm.run), {short_number(arm.learning_rate), ""}, {arm.seed, ""}, {arm.run.setting("optim.clip_norm"), ""},
                          {step ? short_number(static_cast<double>(*step)) : "–", step ? "bad" : "muted"}, {short_number(static_cast<double>(arm.run.steps_done)), ""},
                          {std::isfinite(loss) ? fmt::format("{:.3f}", loss) : "–", ""}, {norms.empty() ? "–" : short_number(norms[norms.size() / 2]), ""},
                          {norms.empty() ? "–" : short_number(norms.back()), ""}, {short_number(arm.run.largest("max_score_per_layer/layer_00")), ""},
                          {fmt::format("{:.3f}", arm.run.training_seconds() / 3600), ""}});
  }
  return table;
}

// For each kind and learning rate: how many of its seeds diverged, and when.
Table rates_table(const std::vector<ArmData>& arms) {
  const bool has_sizes = std::ranges::any_of(arms, [&](const ArmData& arm) { return !size_of(arm, arms).empty(); });
  Table table{.head = {"kind", "learning rate", "arms", "diverged", "at steps"}, .rows = {}, .num_text_columns = has_sizes ? 2U : 1U};
  if (has_sizes) table.head.insert(table.head.begin() + 1, "size");
  std::map<std::tuple<std::string, std::string, double>, std::vector<const ArmData*>> groups;
  for (const ArmData& arm : arms) {
    if (arm.has_ended()) groups[{kind_of(arm), size_of(arm, arms), arm.learning_rate}].push_back(&arm);
  }
  for (const auto& [key, members] : groups) {
    std::string steps;
    int diverged = 0;
    for (const ArmData* arm : members) {
      if (const auto step = arm->diverged_step()) ++diverged, steps += (steps.empty() ? "" : ", ") + short_number(static_cast<double>(*step));
    }
    table.rows.push_back({{std::get<0>(key), ""}, {short_number(std::get<2>(key)), ""}, {std::to_string(members.size()), ""},
                          {std::to_string(diverged), diverged > 0 ? "bad" : "muted"}, {steps.empty() ? "–" : steps, ""}});
    if (has_sizes) table.rows.back().insert(table.rows.back().begin() + 1, {std::get<1>(key), ""});
  }
  return table;
}

// The first arm of each attention, and the first of each that diverged.
std::vector<const ArmData*> arms_by_layer(const std::vector<ArmData>& arms) {
  std::vector<const ArmData*> chosen;
  for (const bool is_sigmoid : {false, true}) {
    for (const bool diverged : {true, false}) {
      const auto found = std::ranges::find_if(arms, [&](const ArmData& arm) { return arm.is_sigmoid == is_sigmoid && arm.diverged_step().has_value() == diverged && arm.has_ended(); });
      if (found != arms.end()) chosen.push_back(&*found);
    }
  }
  return chosen;
}

void add_layers(const std::vector<ArmData>& arms, report::Page& page) {
  std::vector<Figure> figures;
  int number = 0;
  for (const ArmData* arm : arms_by_layer(arms)) {
    for (const auto& [key, title] : {std::pair{"grad_norm_per_layer", "Gradient norm"}, std::pair{"max_score_per_layer", "Largest |score|"}}) {
      std::string name = fmt::format("layers-{}-{}", std::string(key).substr(0, 4) == "grad" ? "grad-norm" : "max-score", number);
      if (auto figure = report::layer_figure(arm->run, key, fmt::format("{}: {}", title, arm->name), name, "By layer over time, logarithmic.")) figures.push_back(std::move(*figure));
    }
    if (auto figure = report::jacobian_figure(arm->run, fmt::format("jacobian-{}", number))) figures.push_back(std::move(*figure));
    ++number;
  }
  if (figures.empty()) return;
  page.heading("Layer by layer");
  page.paragraph("Of the first softmax and the first sigmoid arm, diverged ones before others.", "muted");
  page.figures(std::move(figures));
}

}  // namespace

report::Page stress_report(const StressReport& table) {
  report::Page page(table.title.empty() ? "Stress table" : table.title, table.description);
  std::size_t num_ended = 0;
  double seconds = 0;
  for (const ArmData& arm : table.arms) num_ended += arm.has_ended() ? 1 : 0, seconds += arm.run.training_seconds();
  page.paragraph(fmt::format("{} of {} arms have ended; {:.2f} hours of training steps in all.", num_ended, table.num_planned, seconds / 3600), "muted");
  page.heading("Verdicts");
  for (const Verdict& verdict : judge(table.arms)) {
    const char* css = verdict.word == Word::kReproduced ? "good" : verdict.word == Word::kNotReproduced ? "bad" : "open";
    page.verdict(std::string(text_of(verdict.word)), verdict.claim, verdict.reason, css);
  }
  if (!table.arms.empty()) {
    const Colours colours(table.arms);
    page.heading("Loss, gradient norm and scores");
    page.figures(panels(table.arms, colours));
    add_rates(table.arms, colours, page);
    page.heading("Where arms diverged");
    page.table(rates_table(table.arms));
    page.table(arms_table(table.arms));
    page.paragraph("An arm diverges when a step's loss or gradients are not finite, when its gradient norm exceeds monitor.explosion_factor times the median of the last steps, or when the loss stays "
                   "above its start for monitor.loss_above_start_steps steps; such a step is in the arm's divergence/ folder, and scrna-train replay does it again.", "muted");
    add_layers(table.arms, page);
    std::vector<report::RunData> runs;
    for (const ArmData& arm : table.arms) runs.push_back(arm.run);
    page.heading("Settings, machine, cost");
    std::string machine;
    for (const auto& [key, value] : table.machine) machine += fmt::format("{}: {}\n", key, value);
    machine += fmt::format("command: {}\n", table.command);
    page.details("machine and command", machine);
    const Table settings = report::settings_that_differ(runs);
    if (runs.size() <= kMostLabels) page.table(settings);
    std::string common;
    for (const auto& [path, value] : runs.front().config) common += fmt::format("{}: {}\n", path, value);
    page.details("every setting of " + runs.front().name, common);
  }
  if (!table.failures.empty()) {
    page.heading("Arms that failed");
    Table failures{.head = {"arm", "its last words"}, .rows = {}, .num_text_columns = 2};
    for (const auto& [arm, words] : table.failures) failures.rows.push_back({{arm, ""}, {words, "wrap"}});
    page.table(failures);
  }
  return page;
}

}  // namespace scrna::stress
