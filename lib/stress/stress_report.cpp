#include "lib/stress/stress_report.h"

#include <algorithm>

#include <fmt/format.h>

#include "lib/report/figures.h"
#include "lib/stress/arm_groups.h"
#include "lib/stress/stress_figures.h"
#include "lib/stress/stress_tables.h"

namespace scrna::stress {
namespace {

using report::Table;

constexpr std::size_t kMostOpenRows = 24;  // longer tables of single arms are folded away

void add_table(const std::string& summary, const Table& table, report::Page& page) {
  if (table.rows.size() <= kMostOpenRows)
    page.table(table);
  else
    page.fold(summary, [&] { page.table(table); });
}

void add_state(const StressReport& table, report::Page& page) {
  double seconds = 0;
  for (const ArmData& arm : table.arms) seconds += arm.run.training_seconds();
  const auto missing = missing_arms(table);
  page.paragraph(fmt::format("{} of {} arms have ended; {:.2f} hours of training steps in all.",
                             table.planned.size() - missing.size(), table.planned.size(), seconds / 3600),
                 "muted");
  if (missing.empty()) return;
  const auto num_begun = std::ranges::count_if(missing, [](const auto& arm) { return arm.second != kNotBegun; });
  page.paragraph(fmt::format("The table is not done: {} arm{} missing, {} of them begun. What follows rests on the arms that "
                             "have ended; the same command goes on.",
                             missing.size(), missing.size() == 1 ? " is" : "s are", num_begun),
                 "warn");
  Table arms{.head = {"missing arm", "how far"}, .rows = {}, .num_text_columns = 2};
  for (const auto& [name, state] : missing) arms.rows.push_back({{name, ""}, {state, "muted"}});
  page.fold(fmt::format("the {} missing arm{}", missing.size(), missing.size() == 1 ? "" : "s"),
            [&] { page.table(arms); });
}

void add_glance(const std::vector<ArmGroup>& groups, report::Page& page) {
  page.heading("At a glance");
  page.paragraph(first_rates_words(groups));
  const Table table = first_rates_table(groups);
  if (table.rows.empty()) return;
  page.table(table);
  page.paragraph(
      fmt::format("The lowest learning rate at which the gradient norm jumped ({:.0f} times its running median) and at which "
                  "the run diverged, by seed in their order (one value: all alike; of many seeds counted), of the rates that both attentions have "
                  "ended. One step of the ladder, one seed, or a single jump is weak evidence.",
                  kJump),
      "muted");
}

void add_verdicts(const std::vector<ArmData>& arms, report::Page& page) {
  page.heading("Verdicts");
  for (const Verdict& verdict : judge(arms)) {
    const char* css = verdict.word == Word::kReproduced      ? "good"
                      : verdict.word == Word::kNotReproduced ? "bad"
                                                             : "open";
    page.verdict(std::string(text_of(verdict.word)), verdict.claim, verdict.reason, css);
  }
}

void add_tables(const std::vector<ArmData>& arms, const std::vector<ArmGroup>& groups, report::Page& page) {
  page.heading("Every learning rate, seeds together");
  page.table(merged_table(groups));
  page.paragraph(
      fmt::format(
          "Arms that have ended. Of two seeds both numbers, of more the median and the range; losses without arms that diverged. "
          "A jump is a gradient norm over the running median of the steps before it, {:.0f} times is marked. An arm diverges when a "
          "step's loss or gradients are not finite, when the jump exceeds monitor.explosion_factor, or when the loss stays above "
          "its start for monitor.loss_above_start_steps steps; such a step is in the arm's divergence/ folder, and scrna-train "
          "replay does it again.",
          kJump),
      "muted");
  page.heading("Arm by arm");
  add_table(fmt::format("all {} arms", arms.size()), arms_table(arms), page);
}

void add_settings(const StressReport& table, report::Page& page) {
  page.heading("Settings, machine, cost");
  std::string machine;
  for (const auto& [key, value] : table.machine) machine += fmt::format("{}: {}\n", key, value);
  machine += fmt::format("command: {}\n", table.command);
  page.details("machine and command", machine);
  page.table(axes_table(table.arms));
  std::string common;
  for (const auto& [path, value] : table.arms.front().run.config) common += fmt::format("{}: {}\n", path, value);
  page.details("every setting of " + table.arms.front().name, common);
}

void add_failures(const StressReport& table, report::Page& page) {
  if (table.failures.empty()) return;
  page.heading("Arms that failed");
  Table failures{.head = {"arm", "its last words"}, .rows = {}, .num_text_columns = 2};
  for (const auto& [arm, words] : table.failures) failures.rows.push_back({{arm, ""}, {words, "wrap"}});
  page.table(failures);
}

}  // namespace

std::vector<std::pair<std::string, std::string>> missing_arms(const StressReport& table) {
  std::vector<std::pair<std::string, std::string>> missing;
  for (const std::string& name : table.planned) {
    const auto arm = std::ranges::find(table.arms, name, &ArmData::name);
    if (arm == table.arms.end())
      missing.emplace_back(name, kNotBegun);
    else if (!arm->has_ended())
      missing.emplace_back(name, report::status_of(arm->run).text);
  }
  return missing;
}

report::Page stress_report(const StressReport& table) {
  report::Page page(table.title.empty() ? "Stress table" : table.title, table.description);
  add_state(table, page);
  const std::vector<ArmGroup> groups = groups_of(table.arms);
  if (!table.arms.empty()) add_glance(groups, page);
  add_verdicts(table.arms, page);
  if (!table.arms.empty()) {
    add_rates(groups, page);
    add_panels(table.arms, groups, page);
    add_tables(table.arms, groups, page);
    add_layers(table.arms, page);
    add_settings(table, page);
  }
  add_failures(table, page);
  return page;
}

}  // namespace scrna::stress
