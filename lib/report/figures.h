// The figures of one or several runs; each returns nothing where the runs do not hold what it shows.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/report/line_chart.h"
#include "lib/report/page.h"
#include "lib/report/run_data.h"

namespace scrna::report {

/// How a run is drawn among others.
struct RunStyle {
  std::string label;
  int colour = 0;
  std::string style;
};
/// Each run in its own colour, named by its name.
std::vector<RunStyle> plain_styles(const std::vector<RunData>& runs);

struct CurveChoice {
  std::string name, title, caption;
  std::string key;
  ScaleKind kind = ScaleKind::kLinear;
  bool trend = true;  // means of parts; otherwise every spike
  std::optional<double> y_high;  // where the axis ends, if the curves go beyond it
};
/// One key of every run over the steps; a cross where a run diverged.
std::optional<Figure> curve_figure(const std::vector<RunData>& runs, const std::vector<RunStyle>& styles, const CurveChoice& choice,
                                   std::vector<ReferenceLine> references = {});
/// Held-out loss with what guessing costs.
std::optional<Figure> heldout_figure(const std::vector<RunData>& runs, const std::vector<RunStyle>& styles);
/// A key by layer over time.
std::optional<Figure> layer_figure(const RunData& run, const std::string& key, const std::string& title, const std::string& name,
                                   const std::string& caption);
/// Norms of both Jacobians at the run's own scores, mean over the layers, and their largest entries.
std::optional<Figure> jacobian_figure(const RunData& run, const std::string& name);
std::optional<Figure> phases_figure(const std::vector<RunData>& runs);
std::optional<Figure> lengths_figure(const std::vector<RunData>& runs, const std::vector<RunStyle>& styles);

/// Settings in which the runs differ: one row each. Where nothing differs, no rows.
Table settings_that_differ(const std::vector<RunData>& runs);
/// "finished", "diverged at step 137", "at step 20 of 100".
Table::Cell status_of(const RunData& run);

}  // namespace scrna::report
