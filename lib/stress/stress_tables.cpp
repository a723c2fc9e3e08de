#include "lib/stress/stress_tables.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <iterator>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "lib/report/figures.h"
#include "lib/report/scale.h"

namespace scrna::stress {
namespace {

using report::short_number;
using report::Table;

bool has_jumped(const ArmData& arm) { return arm.spike.ratio >= kJump; }
bool has_diverged(const ArmData& arm) { return arm.diverged_step().has_value(); }

std::string loss_text(double value) { return fmt::format("{:.3f}", value); }
std::string times_text(double value) { return short_number(std::round(value * 10) / 10); }

constexpr std::size_t kListedSeeds = 4;

std::string word_of(const std::optional<double>& rate) { return rate ? short_number(*rate) : "none"; }

/// "0.01 in 3, none in 17": rates ascending, then none.
std::string counted(const std::vector<std::optional<double>>& rates) {
  std::map<double, int> times;
  for (const std::optional<double>& rate : rates) ++times[rate.value_or(std::numeric_limits<double>::infinity())];
  std::string text;
  for (const auto& [rate, count] : times) {
    text += fmt::format("{}{} in {}", text.empty() ? "" : ", ",
                        word_of(std::isfinite(rate) ? std::optional(rate) : std::nullopt), count);
  }
  return text;
}

// "0.01", "0.01, none" in the order of the seeds; of many seeds counted.
Table::Cell rates_cell(const FirstRatesBySeed& firsts, bool is_sigmoid, const char* css) {
  std::vector<std::optional<double>> rates;
  for (const auto& [seed, first] : firsts) rates.push_back(is_sigmoid ? first.sigmoid : first.softmax);
  const char* const class_of_cell = std::ranges::any_of(rates, [](const auto& rate) { return rate.has_value(); }) ? css : "muted";
  const bool are_same = std::ranges::adjacent_find(rates, std::not_equal_to<>()) == rates.end();
  if (are_same && !rates.empty()) rates.resize(1);
  if (rates.size() > kListedSeeds) return {counted(rates), class_of_cell};
  std::vector<std::string> words;
  for (const std::optional<double>& rate : rates) words.push_back(word_of(rate));
  return {fmt::format("{}", fmt::join(words, ", ")), class_of_cell};
}

Table::Cell earlier_cell(const FirstRatesBySeed& firsts) {
  EarlierCounts counts;
  counts.add(firsts);
  std::string text;
  for (const auto& [count, word] :
       {std::pair{counts.softmax, "softmax"}, std::pair{counts.sigmoid, "sigmoid"},
        std::pair{counts.same, "same"}, std::pair{counts.neither, "neither"}}) {
    if (count == 0) continue;
    text += fmt::format("{}{}{}", text.empty() ? "" : ", ", word,
                        count == counts.all() ? "" : fmt::format(" {}", count));
  }
  return {text, counts.neither == counts.all() ? "tight muted" : "tight"};
}

std::string counts_words(const EarlierCounts& counts) {
  return fmt::format("softmax in {}, sigmoid in {}, both at the same rate in {}, neither in {}",
                     counts.softmax, counts.sigmoid, counts.same, counts.neither);
}

// How many seeds diverged, and at which steps.
Table::Cell diverged_cell(const std::vector<const ArmData*>& members) {
  std::string steps;
  int diverged = 0;
  for (const ArmData* arm : members) {
    if (const auto step = arm->diverged_step())
      ++diverged, steps += (steps.empty() ? "" : ", ") + short_number(static_cast<double>(*step));
  }
  if (diverged == 0) return {"0", "muted"};
  return {fmt::format("{} (step {})", diverged, steps), "bad"};
}

std::vector<Table::Cell> merged_row(double rate, bool is_sigmoid, bool is_first,
                                    const std::vector<const ArmData*>& members) {
  std::vector<double> losses, jumps, norms, scores;
  for (const ArmData* arm : members) {
    if (!arm->diverged_step()) losses.push_back(arm->run.last_mean("loss"));
    if (!std::isnan(arm->spike.ratio)) jumps.push_back(arm->spike.ratio);
    norms.push_back(arm->run.largest("grad_norm"));
    scores.push_back(arm->run.largest("max_score_per_layer/layer_00"));
  }
  const bool is_jump = std::ranges::any_of(members, [](const ArmData* arm) { return has_jumped(*arm); });
  return {{is_first ? short_number(rate) : "", ""},
          {is_sigmoid ? "sigmoid" : "softmax", ""},
          {std::to_string(members.size()), ""},
          diverged_cell(members),
          {text_of(spread_of(losses), loss_text), ""},
          {text_of(spread_of(jumps), times_text), is_jump ? "warn" : ""},
          {text_of(spread_of(norms), short_number), ""},
          {text_of(spread_of(scores), short_number), ""}};
}

}  // namespace

Table first_rates_table(const std::vector<ArmGroup>& groups) {
  Table table{.head = {"lowest rate", "softmax", "sigmoid", "earlier"}, .rows = {}};
  for (const ArmGroup& group : groups) {
    const auto jumps = first_rates(group, has_jumped), ends = first_rates(group, has_diverged);
    if (ends.empty()) continue;
    std::set<double> rates;
    std::string seeds;
    for (const auto& [seed, first] : ends) {
      rates.insert(first.rates.begin(), first.rates.end());
      seeds += (seeds.empty() ? "" : ", ") + seed;
    }
    const std::string rate_words = rates.size() == 1 ? "1 rate, " + short_number(*rates.begin())
                                                     : fmt::format("{} rates, {} to {}", rates.size(), short_number(*rates.begin()),
                                                                   short_number(*rates.rbegin()));
    const std::string seed_words = ends.size() > kListedSeeds ? fmt::format("{} seeds", ends.size())
                                                              : fmt::format("seed{} {}", ends.size() == 1 ? "" : "s", seeds);
    table.rows.push_back({{fmt::format("{} · {} · {}", group.name(), rate_words, seed_words), ""}});
    table.rows.push_back({{"norm jumps", ""},
                          rates_cell(jumps, false, "warn"),
                          rates_cell(jumps, true, "warn"),
                          earlier_cell(jumps)});
    table.rows.push_back({{"diverges", ""},
                          rates_cell(ends, false, "bad"),
                          rates_cell(ends, true, "bad"),
                          earlier_cell(ends)});
  }
  return table;
}

std::string first_rates_words(const std::vector<ArmGroup>& groups) {
  const bool has_plain = std::ranges::any_of(groups, &ArmGroup::is_plain);
  EarlierCounts jumps, ends;
  for (const ArmGroup& group : groups) {
    if (group.is_plain != has_plain) continue;
    jumps.add(first_rates(group, has_jumped));
    ends.add(first_rates(group, has_diverged));
  }
  if (ends.all() == 0)
    return "No learning rate has ended with both attentions yet, so nothing can be compared.";
  return fmt::format(
      "{} on {} ladder{} of learning rates that both attentions climbed (one for each setting and seed). "
      "Diverged at the lower "
      "rate: {}. Gradient norm jumped at the lower rate: {}.",
      has_plain ? "Without clipping," : "With clipping or another remedy in every arm,", ends.all(),
      ends.all() == 1 ? "" : "s", counts_words(ends), counts_words(jumps));
}

Table merged_table(const std::vector<ArmGroup>& groups) {
  Table table{.head = {"learning rate", "attention", "arms", "diverged", "final loss", "largest jump, ×",
                       "largest norm", "largest score"},
              .rows = {},
              .num_text_columns = 2};
  for (const ArmGroup& group : groups) {
    const std::size_t section = table.rows.size();
    for (const double rate : group.rates()) {
      bool is_first = true;
      for (const bool is_sigmoid : {false, true}) {
        std::vector<const ArmData*> members = group.of(is_sigmoid);
        std::erase_if(members,
                      [&](const ArmData* arm) { return arm->learning_rate != rate || !arm->has_ended(); });
        if (members.empty()) continue;
        table.rows.push_back(merged_row(rate, is_sigmoid, is_first, members));
        is_first = false;
      }
    }
    if (table.rows.size() == section) continue;
    table.rows.insert(table.rows.begin() + static_cast<std::ptrdiff_t>(section),
                      std::vector<Table::Cell>{{group.name(), ""}});
  }
  return table;
}

Table arms_table(const std::vector<ArmData>& arms) {
  Table table{.head = {"arm", "state", "steps", "loss", "largest jump, ×", "at step", "median norm",
                       "largest norm", "largest score", "hours"},
              .rows = {},
              .num_text_columns = 2};
  for (const ArmData& arm : arms) {
    std::vector<double> norms;
    if (const report::Curve* curve = arm.run.find("grad_norm")) norms = curve->values;
    const Spread spread = spread_of(norms);
    const double loss = arm.run.last_mean("loss");
    const bool has_ratio = !std::isnan(arm.spike.ratio);
    table.rows.push_back({{arm.name, ""},
                          report::status_of(arm.run),
                          {short_number(static_cast<double>(arm.run.steps_done)), ""},
                          {std::isfinite(loss) ? loss_text(loss) : "–", ""},
                          {has_ratio ? times_text(arm.spike.ratio) : "–", has_jumped(arm) ? "warn" : ""},
                          {has_ratio ? short_number(static_cast<double>(arm.spike.step)) : "–", ""},
                          {spread.count > 0 ? short_number(spread.median) : "–", ""},
                          {spread.count > 0 ? short_number(spread.most) : "–", ""},
                          {short_number(arm.run.largest("max_score_per_layer/layer_00")), ""},
                          {fmt::format("{:.3f}", arm.run.training_seconds() / 3600), ""}});
  }
  return table;
}

Table axes_table(const std::vector<ArmData>& arms) {
  Table table{.head = {"setting", "values"}, .rows = {}, .num_text_columns = 2};
  for (const auto& [path, first] : arms.front().run.config) {
    if (path == "run.dir") continue;
    std::vector<std::string> values;
    for (const ArmData& arm : arms) {
      const std::string value = arm.run.setting(path);
      if (std::ranges::find(values, value) == values.end()) values.push_back(value);
    }
    if (values.size() > 1)
      table.rows.push_back({{path, ""}, {fmt::format("{}", fmt::join(values, ", ")), "wrap"}});
  }
  return table;
}

}  // namespace scrna::stress
