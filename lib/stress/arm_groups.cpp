#include "lib/stress/arm_groups.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <utility>

#include <fmt/format.h>

#include "lib/report/scale.h"

namespace scrna::stress {
namespace {

using report::short_number;

// Settings that say the same as another one.
constexpr std::string_view kImplied[] = {"model.num_heads", "model.feed_forward_width"};
constexpr std::string_view kTreatments[] = {"optim.clip_norm", "model.qk_norm", "model.attention_bias"};

std::string treatment_of(const ArmData& arm) {
  std::string text =
      arm.is_clipped ? "clipped at " + short_number(arm.run.number("optim.clip_norm")) : "no clipping";
  if (arm.has_qk_norm) text += ", QK-norm";
  if (!arm.has_default_bias) text += ", bias " + arm.run.setting("model.attention_bias");
  return text;
}

// Paths of arm.twin whose values differ between arms, treatments and what follows from others left out.
std::vector<std::string> size_paths(const std::vector<ArmData>& arms) {
  std::vector<std::string> order;
  std::map<std::string, std::set<std::string>> values;
  std::set<std::string_view> seen;
  for (const ArmData& arm : arms) {
    if (!seen.insert(arm.twin).second) continue;
    std::istringstream lines(arm.twin);
    for (std::string line; std::getline(lines, line);) {
      const std::size_t equals = line.find('=');
      std::string path = line.substr(0, equals);
      if (!values.contains(path)) order.push_back(path);
      values[path].insert(line.substr(equals + 1));
    }
  }
  const bool has_widths = values["model.width"].size() > 1;
  std::erase_if(order, [&](const std::string& path) {
    return values[path].size() < 2 || std::ranges::find(kTreatments, path) != std::end(kTreatments) ||
           (has_widths && std::ranges::find(kImplied, path) != std::end(kImplied));
  });
  return order;
}

std::string size_of(const ArmData& arm, const std::vector<std::string>& paths) {
  std::string text;
  for (const std::string& path : paths) {
    const std::string word = path == "model.width"            ? "width"
                             : path == "model.num_layers"     ? "layers"
                             : path == "tokenizer.max_tokens" ? "context"
                                                              : path;
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", word, arm.run.setting(path));
  }
  return text;
}

}  // namespace

std::string ArmGroup::name() const { return size.empty() ? treatment : size + ", " + treatment; }

std::vector<const ArmData*> ArmGroup::of(bool is_sigmoid) const {
  std::vector<const ArmData*> members;
  std::ranges::copy_if(arms, std::back_inserter(members),
                       [&](const ArmData* arm) { return arm->is_sigmoid == is_sigmoid; });
  return members;
}

std::set<double> ArmGroup::rates() const {
  std::set<double> rates;
  for (const ArmData* arm : arms) rates.insert(arm->learning_rate);
  return rates;
}

std::vector<ArmGroup> groups_of(const std::vector<ArmData>& arms) {
  const std::vector<std::string> paths = size_paths(arms);
  std::vector<ArmGroup> groups;
  std::map<std::string_view, std::size_t> places;
  for (const ArmData& arm : arms) {
    const auto [place, is_new] = places.emplace(arm.twin, groups.size());
    if (is_new) {
      groups.push_back({.size = size_of(arm, paths),
                        .treatment = treatment_of(arm),
                        .is_plain = !arm.is_clipped && !arm.has_qk_norm && arm.has_default_bias,
                        .arms = {}});
    }
    groups[place->second].arms.push_back(&arm);
  }
  return groups;
}

Spread spread_of(const std::vector<double>& values) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> finite;
  std::ranges::copy_if(values, std::back_inserter(finite), [](double value) { return std::isfinite(value); });
  std::ranges::sort(finite);
  const std::size_t count = finite.size();
  if (count == 0) return {kNaN, kNaN, kNaN, 0, values.size()};
  return {finite.front(), (finite[(count - 1) / 2] + finite[count / 2]) / 2, finite.back(), count,
          values.size() - count};
}

std::string text_of(const Spread& spread, const std::function<std::string(double)>& number) {
  if (spread.count == 0) return spread.num_not_finite > 0 ? "∞" : "–";
  const std::string least = number(spread.least), most = number(spread.most);
  std::string text = least == most       ? least
                     : spread.count == 2 ? fmt::format("{} – {}", least, most)
                                         : fmt::format("{} ({} – {})", number(spread.median), least, most);
  if (spread.num_not_finite > 0) text += ", ∞";
  return text;
}

FirstRates::Earlier FirstRates::earlier() const {
  if (!softmax && !sigmoid) return Earlier::kNeither;
  const double infinity = std::numeric_limits<double>::infinity();
  const double a = softmax.value_or(infinity), b = sigmoid.value_or(infinity);
  return a < b ? Earlier::kSoftmax : b < a ? Earlier::kSigmoid : Earlier::kSame;
}

FirstRatesBySeed first_rates(const ArmGroup& group,
                             const std::function<bool(const ArmData&)>& happened) {
  std::map<std::string, std::map<double, std::pair<const ArmData*, const ArmData*>>>
      pairs;  // seed -> rate -> both
  for (const ArmData* arm : group.arms) {
    if (!arm->has_ended()) continue;
    auto& pair = pairs[arm->seed][arm->learning_rate];
    (arm->is_sigmoid ? pair.second : pair.first) = arm;
  }
  FirstRatesBySeed firsts;
  for (const auto& [seed, rates] : pairs) {
    for (const auto& [rate, pair] : rates) {
      if (pair.first == nullptr || pair.second == nullptr) continue;
      FirstRates& first = firsts[seed];
      first.rates.insert(rate);
      if (!first.softmax && happened(*pair.first)) first.softmax = rate;
      if (!first.sigmoid && happened(*pair.second)) first.sigmoid = rate;
    }
  }
  return firsts;
}

void EarlierCounts::add(const FirstRatesBySeed& firsts) {
  for (const auto& [seed, first] : firsts) {
    switch (first.earlier()) {
      case FirstRates::Earlier::kSoftmax:
        ++softmax;
        break;
      case FirstRates::Earlier::kSigmoid:
        ++sigmoid;
        break;
      case FirstRates::Earlier::kSame:
        ++same;
        break;
      case FirstRates::Earlier::kNeither:
        ++neither;
        break;
    }
  }
}

}  // namespace scrna::stress
