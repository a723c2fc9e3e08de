#include "lib/report/run_report.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>

#include <fmt/format.h>

#include "lib/core/error.h"
#include "lib/report/figures.h"
#include "lib/report/spike.h"

namespace scrna::report {
namespace {

constexpr std::size_t kMostLayerFigures = 4;  // runs that are drawn by layer

std::string fixed(double value, int decimals) {
  return std::isfinite(value) ? fmt::format("{:.{}f}", value, decimals) : "–";
}

std::string duration(double seconds) {
  if (seconds < 120) return fmt::format("{:.0f} s", seconds);
  if (seconds < 7200) return fmt::format("{:.1f} min", seconds / 60);
  return fmt::format("{:.1f} h", seconds / 3600);
}

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}", local.tm_year + 1900, local.tm_mon + 1, local.tm_mday,
                     local.tm_hour, local.tm_min);
}

void append(std::optional<Figure> figure, std::vector<Figure>& figures) {
  if (figure) figures.push_back(std::move(*figure));
}

void add_curves(const std::vector<RunData>& runs, const std::vector<RunStyle>& styles, Page& page) {
  std::vector<Figure> figures;
  append(curve_figure(runs, styles,
                      {.name = "loss",
                       .title = "Training loss, nats per masked gene",
                       .caption = "Means of neighbouring steps; a cross marks where a run diverged.",
                       .key = "loss"}),
         figures);
  append(heldout_figure(runs, styles), figures);
  append(curve_figure(runs, styles,
                      {.name = "grad-norm",
                       .title = "Gradient norm before clipping",
                       .caption = "Global L2 norm of every step, logarithmic.",
                       .key = "grad_norm",
                       .kind = ScaleKind::kLog,
                       .trend = false}),
         figures);
  append(curve_figure(
             runs, styles,
             {.name = "max-score",
              .title = "Largest |score| in layer 0",
              .caption =
                  "Of sampled queries, after scaling and before the bias: a lower bound of the true maximum.",
              .key = "max_score_per_layer/layer_00",
              .kind = ScaleKind::kLog,
              .trend = false}),
         figures);
  append(curve_figure(runs, styles,
                      {.name = "learning-rate",
                       .title = "Learning rate",
                       .caption = "Of each optimizer step.",
                       .key = "learning_rate",
                       .trend = false}),
         figures);
  append(curve_figure(runs, styles,
                      {.name = "skipped",
                       .title = "Steps not applied, in all",
                       .caption = "Steps that diverged and left the weights as they were.",
                       .key = "skipped_steps",
                       .trend = false}),
         figures);
  std::erase_if(figures, [&](const Figure& figure) {
    return figure.name == "skipped" &&
           std::ranges::all_of(runs, [](const RunData& run) { return !(run.largest("skipped_steps") > 0); });
  });
  page.heading("Training");
  page.figures(std::move(figures));
}

void add_layers(const std::vector<RunData>& runs, Page& page) {
  struct Choice {
    const char* key;
    const char* title;
    const char* caption;
    bool also_of_several;
  };
  constexpr Choice kChoices[] = {
      {"grad_norm_per_layer", "Gradient norm by layer", "Largest of neighbouring steps; logarithmic.", true},
      {"max_score_per_layer", "Largest |score| by layer",
       "Of sampled queries; a lower bound of the true maximum.", true},
      {"update_ratio_per_layer", "Update over weights by layer",
       "L2 norm of a step's change of the weights over that of the weights.", false},
      {"weight_norm_per_layer", "Weight norm by layer", "L2.", false},
      {"residual_rms_per_layer", "Residual stream by layer", "Root mean square of what enters each block.",
       false},
      {"attention_rms_per_layer", "What attention adds",
       "Root mean square of attention's branch, before dropout.", false},
      {"attention_row_sum_per_layer", "Sum of attention's weights",
       "Mean over sampled rows and heads; softmax: 1.", false},
      {"attention_entropy_per_layer", "Entropy of attention, nats",
       "Mean over sampled rows, each divided by its sum.", false},
  };
  std::vector<Figure> figures;
  for (std::size_t i = 0; i < std::min(runs.size(), kMostLayerFigures); ++i) {
    const std::string suffix = runs.size() == 1 ? "" : ": " + runs[i].name;
    const std::string file_suffix = runs.size() == 1 ? "" : fmt::format("-{}", i);
    for (const Choice& choice : kChoices) {
      if (runs.size() > 1 && !choice.also_of_several) continue;
      std::string name = std::string(choice.key).substr(0, std::string(choice.key).find("_per_layer")) +
                         "-layers" + file_suffix;
      std::ranges::replace(name, '_', '-');
      append(layer_figure(runs[i], choice.key, choice.title + suffix, name, choice.caption), figures);
    }
    append(jacobian_figure(runs[i], "jacobian" + file_suffix), figures);
  }
  if (figures.empty()) return;
  page.heading("By layer");
  if (runs.size() > kMostLayerFigures)
    page.paragraph(fmt::format("Of the first {} runs.", kMostLayerFigures), "muted");
  page.figures(std::move(figures));
}

}  // namespace

Table summary_table(const std::vector<RunData>& runs) {
  Table table{.head = {"run", "state", "steps", "loss", "held-out", "gene frequencies", "gradient norm",
                       "largest jump, ×", "cells/s", "TFLOP/s", "MFU", "time"},
              .rows = {},
              .num_text_columns = 2};
  for (const RunData& run : runs) {
    const Curve* heldout = run.find("heldout_loss");
    const Curve* frequency = run.find("heldout_gene_frequency_loss");
    const double last_heldout = heldout == nullptr ? NAN : heldout->values.back();
    const double last_frequency = frequency == nullptr ? NAN : frequency->values.back();
    const double mfu = run.last_mean("mfu"), jump = largest_spike(run).ratio;
    table.rows.push_back({{run.name, ""},
                          status_of(run),
                          {short_number(static_cast<double>(run.steps_done)), ""},
                          {fixed(run.last_mean("loss"), 3), ""},
                          {fixed(last_heldout, 3), last_heldout < last_frequency ? "good" : ""},
                          {fixed(last_frequency, 3), ""},
                          {short_number(run.last_mean("grad_norm")), ""},
                          {std::isnan(jump) ? "–" : short_number(std::round(10 * jump) / 10), ""},
                          {fixed(run.last_mean("cells_per_second"), 1), ""},
                          {fixed(run.last_mean("model_tflops_per_second"), 2), ""},
                          {std::isfinite(mfu) ? fmt::format("{:.1f} %", 100 * mfu) : "–", ""},
                          {duration(run.training_seconds()), ""}});
  }
  return table;
}

Table divergence_table(const std::vector<RunData>& runs) {
  Table table{
      .head = {"run", "reason", "followed by", "step", "loss", "gradient norm", "limit", "cells", "replay"},
      .rows = {},
      .num_text_columns = 3};
  for (const RunData& run : runs) {
    for (const DivergedStep& step : run.diverged) {
      table.rows.push_back({{run.name, ""},
                            {step.reason, ""},
                            {step.policy, ""},
                            {short_number(static_cast<double>(step.step)), ""},
                            {short_number(step.loss), ""},
                            {short_number(step.grad_norm), ""},
                            {short_number(step.grad_norm_limit), ""},
                            {short_number(static_cast<double>(step.cells)), ""},
                            {step.file.filename().string(), "muted"}});
    }
  }
  return table;
}

void add_speed(const std::vector<RunData>& runs, Page& page) {
  const std::vector<RunStyle> styles = plain_styles(runs);
  std::vector<Figure> figures;
  append(curve_figure(runs, styles,
                      {.name = "throughput",
                       .title = "Cells per second",
                       .caption = "Means of neighbouring steps, without evaluation and saving.",
                       .key = "cells_per_second"}),
         figures);
  append(phases_figure(runs), figures);
  append(lengths_figure(runs, styles), figures);
  if (figures.empty()) return;
  page.heading("Speed and cells");
  page.figures(std::move(figures));
}

void add_settings(const std::vector<RunData>& runs, Page& page) {
  page.heading("Settings");
  if (runs.size() > 1) {
    const Table table = settings_that_differ(runs);
    if (table.rows.empty()) {
      page.paragraph("All runs have the same settings.");
    } else {
      page.table(table);
    }
  }
  for (const RunData& run : std::vector<RunData>(runs.begin(), runs.begin() + 1)) {
    std::string text;
    for (const auto& [path, value] : run.config) text += fmt::format("{}: {}\n", path, value);
    page.details(fmt::format("every setting of {}", run.name), text);
    std::string facts;
    for (const auto& [key, value] : run.facts) facts += fmt::format("{}: {}\n", key, value);
    if (!facts.empty()) page.details(fmt::format("what {} ran on", run.name), facts);
  }
}

Page run_report(const std::vector<RunData>& runs) {
  SCRNA_CHECK(!runs.empty(), "a report of no runs");
  Page page(runs.size() == 1 ? runs[0].name : fmt::format("{} training runs", runs.size()),
            fmt::format("scrna-train report, {}", today()));
  page.table(summary_table(runs));
  const Table diverged = divergence_table(runs);
  add_curves(runs, plain_styles(runs), page);
  if (!diverged.rows.empty()) {
    page.heading("Steps that diverged");
    page.table(diverged);
    page.paragraph(
        "scrna-train replay RUN/divergence/FILE does such a step again and shows its cells, norms and exact "
        "scores.",
        "muted");
  }
  add_layers(runs, page);
  add_speed(runs, page);
  add_settings(runs, page);
  return page;
}

}  // namespace scrna::report
