#include "lib/stress/claims.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <map>
#include <set>

#include <fmt/format.h>

#include "lib/core/error.h"
#include "lib/report/scale.h"
#include "lib/stress/sign_test.h"

namespace scrna::stress {
namespace {

using report::short_number;

constexpr double kPaperLearningRate = 1e-4;

std::string number_list(const std::set<double>& values) {
  std::string text;
  for (const double value : values) text += (text.empty() ? "" : ", ") + short_number(value);
  return text;
}

// Finite values behind the first tenth of a curve: without the jump of the beginning.
std::vector<double> settled(const report::RunData& run, const std::string& key) {
  std::vector<double> values;
  const report::Curve* curve = run.find(key);
  if (curve == nullptr) return values;
  for (std::size_t i = curve->values.size() / 10; i < curve->values.size(); ++i) {
    if (std::isfinite(curve->values[i])) values.push_back(curve->values[i]);
  }
  return values;
}

double quantile(std::vector<double> values, double part) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(part * static_cast<double>(values.size() - 1));
  std::ranges::nth_element(values, at);
  return *at;
}

bool is_plain(const ArmData& arm) { return !arm.is_clipped && !arm.has_qk_norm && arm.has_default_bias; }

Verdict softmax_diverges_alone(const std::vector<ArmData>& arms) {
  Verdict verdict{.claim =
                      "Without gradient clipping, softmax attention diverges where sigmoid attention, all "
                      "else equal, does not.",
                  .reason = {}};
  int only_softmax = 0, only_sigmoid = 0, both = 0, neither = 0, softmax_first = 0;
  bool paper_like = false;
  std::set<double> rates_softmax, rates_sigmoid;
  for (const ArmData& softmax : arms) {
    if (softmax.is_sigmoid || !is_plain(softmax) || !softmax.has_ended()) continue;
    for (const ArmData& sigmoid : arms) {
      if (!sigmoid.is_sigmoid || !is_plain(sigmoid) || !sigmoid.has_ended()) continue;
      if (sigmoid.twin != softmax.twin || sigmoid.learning_rate != softmax.learning_rate ||
          sigmoid.seed != softmax.seed)
        continue;
      const auto at_softmax = softmax.diverged_step(), at_sigmoid = sigmoid.diverged_step();
      if (at_softmax && !at_sigmoid) ++only_softmax, rates_softmax.insert(softmax.learning_rate);
      if (!at_softmax && at_sigmoid) ++only_sigmoid, rates_sigmoid.insert(softmax.learning_rate);
      if (at_softmax && at_sigmoid) ++both, softmax_first += *at_softmax < *at_sigmoid ? 1 : 0;
      if (!at_softmax && !at_sigmoid) {
        ++neither;
        paper_like = paper_like || (softmax.run.steps_done >= kPaperDivergenceStep &&
                                    softmax.learning_rate <= kPaperLearningRate);
      }
    }
  }
  const int pairs = only_softmax + only_sigmoid + both + neither;
  if (pairs == 0) {
    verdict.reason = "No two unclipped arms that differ in their attention alone have ended.";
    return verdict;
  }
  verdict.reason = fmt::format(
      "Of {} pairs that differ in attention alone (same learning rate, seed and cells): softmax alone "
      "diverged in {}{}, sigmoid alone in {}{}, both in {}{}, neither in {}{}.",
      pairs, only_softmax,
      rates_softmax.empty() ? "" : fmt::format(" (learning rates {})", number_list(rates_softmax)),
      only_sigmoid, rates_sigmoid.empty() ? "" : fmt::format(" ({})", number_list(rates_sigmoid)), both,
      both > 0 ? fmt::format(" (softmax earlier in {})", softmax_first) : "", neither,
      sign_test_words(only_softmax, only_sigmoid));
  if (only_softmax > 0 && only_sigmoid > 0)
    verdict.word = Word::kMixed;
  else if (only_softmax > 0)
    verdict.word = Word::kReproduced;
  else if (only_sigmoid > 0 || paper_like)
    verdict.word = Word::kNotReproduced;
  else
    verdict.reason += fmt::format(
        " The paper's softmax run diverged at step {} of a learning rate of 10⁻⁴; these runs are shorter or "
        "their rates do not tell the two apart.",
        short_number(static_cast<double>(kPaperDivergenceStep)));
  return verdict;
}

// The lowest learning rate at which arms of one kind, twin settings and seed diverged.
struct Ladder {
  std::set<double> rates;
  std::optional<double> first_diverged;
};

Verdict sigmoid_bears_higher_rates(const std::vector<ArmData>& arms) {
  Verdict verdict{.claim =
                      "Without clipping, sigmoid attention bears a higher learning rate than softmax before "
                      "it first diverges.",
                  .reason = {}};
  std::map<std::pair<std::string, std::string>, std::map<bool, Ladder>>
      ladders;  // (twin, seed) -> is_sigmoid -> ladder
  for (const ArmData& arm : arms) {
    if (!is_plain(arm) || !arm.has_ended()) continue;
    Ladder& ladder = ladders[{arm.twin, arm.seed}][arm.is_sigmoid];
    ladder.rates.insert(arm.learning_rate);
    if (arm.diverged_step())
      ladder.first_diverged = std::min(ladder.first_diverged.value_or(arm.learning_rate), arm.learning_rate);
  }
  int higher = 0, lower = 0, same = 0, neither = 0;
  for (const auto& [who, kinds] : ladders) {
    if (!kinds.contains(true) || !kinds.contains(false)) continue;
    const Ladder &sigmoid = kinds.at(true), &softmax = kinds.at(false);
    if (sigmoid.rates != softmax.rates || sigmoid.rates.size() < 2) continue;
    const double infinity = std::numeric_limits<double>::infinity();
    const double a = sigmoid.first_diverged.value_or(infinity), b = softmax.first_diverged.value_or(infinity);
    (a > b ? higher : a < b ? lower : std::isinf(a) ? neither : same) += 1;
  }
  if (higher + lower + same + neither == 0) {
    verdict.reason = "There is no ladder of at least two learning rates that both kinds have ended.";
    return verdict;
  }
  verdict.reason = fmt::format(
      "Lowest diverging learning rate of each ladder: sigmoid's is higher in {}, lower in {}, the same in "
      "{}; neither diverged in {}.",
      higher, lower, same, neither);
  if (higher > 0 && lower > 0)
    verdict.word = Word::kMixed;
  else if (higher > 0)
    verdict.word = same > higher ? Word::kMixed : Word::kReproduced;
  else if (lower + same > 0)
    verdict.word = Word::kNotReproduced;
  if (same > 0) verdict.reason += " The same means: at this ladder's resolution.";
  return verdict;
}

// Not a claim of the paper either: what can be seen of it where nothing diverges.
Verdict gradients_jump_alone(const std::vector<ArmData>& arms) {
  Verdict verdict{.claim = fmt::format("(Near a divergence; our criterion) Without clipping, softmax's gradient norm jumps to "
                                       "{:.0f} times its running median where sigmoid's, all else equal, does not.", kJump),
                  .reason = {}};
  int only_softmax = 0, only_sigmoid = 0, both = 0, neither = 0;
  std::vector<double> quotients;
  for (const ArmData& softmax : arms) {
    if (softmax.is_sigmoid || !is_plain(softmax) || !softmax.has_ended() || std::isnan(softmax.spike.ratio)) continue;
    for (const ArmData& sigmoid : arms) {
      if (!sigmoid.is_sigmoid || !sigmoid.has_ended() || sigmoid.twin != softmax.twin || sigmoid.seed != softmax.seed ||
          sigmoid.learning_rate != softmax.learning_rate || std::isnan(sigmoid.spike.ratio))
        continue;
      const bool at_softmax = softmax.spike.ratio >= kJump, at_sigmoid = sigmoid.spike.ratio >= kJump;
      (at_softmax ? (at_sigmoid ? both : only_softmax) : (at_sigmoid ? only_sigmoid : neither)) += 1;
      const double quotient = softmax.spike.ratio / sigmoid.spike.ratio;
      if (std::isfinite(quotient) && quotient > 0) quotients.push_back(quotient);
    }
  }
  const int pairs = only_softmax + only_sigmoid + both + neither;
  if (pairs == 0) {
    verdict.reason = "No two unclipped arms that differ in their attention alone have ended.";
    return verdict;
  }
  verdict.reason = fmt::format(
      "Of {} pairs that differ in attention alone: only softmax's jumped in {}, only sigmoid's in {}, both in {}, neither in "
      "{}{}.{}",
      pairs, only_softmax, only_sigmoid, both, neither, sign_test_words(only_softmax, only_sigmoid),
      quotients.empty() ? std::string()
                        : fmt::format(" Softmax's largest jump is {} to {} times sigmoid's{}.",
                                      short_number(*std::ranges::min_element(quotients)),
                                      short_number(*std::ranges::max_element(quotients)),
                                      quotients.size() < 3
                                          ? std::string()
                                          : fmt::format(", in the middle pair {}", short_number(quantile(quotients, 0.5)))));
  if (only_softmax + only_sigmoid + both == 1)
    verdict.reason += " A single pair is too little to tell.";
  else if (only_softmax > 0)
    verdict.word = only_sigmoid > 0 || both >= only_softmax ? Word::kMixed : Word::kReproduced;
  else if (only_sigmoid + both > 0)
    verdict.word = Word::kNotReproduced;
  return verdict;
}

Verdict sigmoid_stays_calm(const std::vector<ArmData>& arms) {
  Verdict verdict{
      .claim =
          "Unclipped sigmoid attention stays calm: gradient norms below 100 and layer-0 scores of 1 to 5.",
      .reason = {}};
  int calm = 0, not_calm = 0;
  int64_t longest = 0;
  double worst_norm = 0, worst_score = 0, largest_norm = 0;
  for (const ArmData& arm : arms) {
    if (!arm.is_sigmoid || !is_plain(arm) || !arm.has_ended()) continue;
    const double norm = quantile(settled(arm.run, "grad_norm"), 0.99);
    const double score = quantile(settled(arm.run, "max_score_per_layer/layer_00"), 0.99);
    const bool is_calm = !arm.diverged_step() && norm < 100 && !(score > 5);
    (is_calm ? calm : not_calm) += 1;
    if (is_calm) longest = std::max(longest, arm.run.steps_done);
    worst_norm = std::max(worst_norm, norm), worst_score = std::max(worst_score, score);
    largest_norm = std::max(largest_norm, arm.run.largest("grad_norm"));
  }
  if (calm + not_calm == 0) {
    verdict.reason = "No unclipped sigmoid arm has ended.";
    return verdict;
  }
  verdict.reason = fmt::format(
      "{} of {} arms are calm; over all, the 99th percentile of the gradient norm reaches {} (a single "
      "step's: {}) and of layer 0's largest sampled score {}.",
      calm, calm + not_calm, short_number(worst_norm), short_number(largest_norm), short_number(worst_score));
  if (calm == 0)
    verdict.word = Word::kNotReproduced;
  else if (not_calm > 0)
    verdict.word = Word::kMixed, verdict.reason += " Learning rates above the paper's count here too.";
  else if (longest >= kPaperDivergenceStep)
    verdict.word = Word::kReproduced;
  else
    verdict.reason += fmt::format(" It held for {} steps; the paper's runs had 80,000.",
                                  short_number(static_cast<double>(longest)));
  return verdict;
}

Verdict scores_explode(const std::vector<ArmData>& arms) {
  Verdict verdict{.claim =
                      "As unclipped softmax diverges, the scores of layer 0 grow by orders of magnitude "
                      "(paper: 20 to 2×10⁸).",
                  .reason = {}};
  int grown = 0, others = 0;
  double largest_factor = 0;
  for (const ArmData& arm : arms) {
    if (arm.is_sigmoid || !is_plain(arm) || !arm.diverged_step()) continue;
    const report::Curve* curve = arm.run.find("max_score_per_layer/layer_00");
    if (curve == nullptr || curve->values.size() < 2) continue;
    const auto third = std::max<std::ptrdiff_t>(1, std::ssize(curve->values) / 3);
    std::vector<double> first;
    std::copy_if(curve->values.begin(), curve->values.begin() + third, std::back_inserter(first),
                 [](double value) { return std::isfinite(value) && value > 0; });
    if (first.empty()) continue;
    const double before = quantile(std::move(first), 0.5);
    double after = 0;
    for (auto at = curve->values.end() - third; at != curve->values.end(); ++at)
      after = std::isfinite(*at) ? std::max(after, *at) : std::numeric_limits<double>::infinity();
    const double factor = after / before;
    largest_factor = std::max(largest_factor, factor);
    (factor >= 100 ? grown : others) += 1;
  }
  if (grown + others == 0) {
    verdict.reason = "No unclipped softmax arm diverged.";
    return verdict;
  }
  verdict.reason = fmt::format(
      "From the median of their first third to the most of their last, scores grew at least 100 times in {} "
      "of {} arms; the most is {} times.",
      grown, grown + others, short_number(largest_factor));
  verdict.word = grown > 0 && others == 0 ? Word::kReproduced
                 : grown == 0             ? Word::kNotReproduced
                                          : Word::kMixed;
  return verdict;
}

Verdict derivatives_are_bounded(const std::vector<ArmData>& arms) {
  Verdict verdict{
      .claim = "The derivative of sigmoid attention's weights in its scores is bounded by ¼ (and diagonal).",
      .reason = {}};
  double sigmoid = 0, softmax = 0, sigmoid_norm = 0, softmax_norm = 0;
  int64_t measured = 0;
  for (const ArmData& arm : arms) {
    for (const std::string& layer : arm.run.layers_of("sigmoid_jacobian_max_per_layer")) {
      const auto most = [&](const char* key) { return arm.run.largest(fmt::format("{}/{}", key, layer)); };
      if (!std::isfinite(most("sigmoid_jacobian_max_per_layer"))) continue;
      ++measured;
      sigmoid = std::max(sigmoid, most("sigmoid_jacobian_max_per_layer"));
      softmax = std::max(softmax, most("softmax_jacobian_max_per_layer"));
      sigmoid_norm = std::max(sigmoid_norm, most("sigmoid_jacobian_norm_per_layer"));
      softmax_norm = std::max(softmax_norm, most("softmax_jacobian_norm_per_layer"));
    }
  }
  if (measured == 0) {
    verdict.reason = "No Jacobians were measured (monitor.every_steps).";
    return verdict;
  }
  verdict.word = sigmoid <= 0.25 * (1 + 1e-6) ? Word::kReproduced : Word::kNotReproduced;
  verdict.reason = fmt::format(
      "At sampled scores of all arms and layers: sigmoid's largest entry {}, softmax's {} (its entries p(1 − "
      "p) have the same bound; what sets it apart is that a row's entries "
      "depend on each other). Largest mean Frobenius norm of a row: sigmoid {}, softmax {}.",
      short_number(sigmoid), short_number(softmax), short_number(sigmoid_norm), short_number(softmax_norm));
  return verdict;
}

// Not the paper's claim but the control it lacks.
Verdict other_remedies(const std::vector<ArmData>& arms) {
  Verdict verdict{.claim =
                      "(Control that the paper lacks) Only sigmoid attention keeps the runs from diverging; "
                      "clipping or QK-norm does not keep softmax from it.",
                  .reason = {}};
  std::map<std::string, std::set<std::pair<double, std::string>>> saved, lost;
  for (const ArmData& plain : arms) {
    if (plain.is_sigmoid || !is_plain(plain) || !plain.diverged_step()) continue;
    for (const ArmData& arm : arms) {
      if (arm.is_sigmoid || is_plain(arm) || !arm.has_ended() || arm.learning_rate != plain.learning_rate ||
          arm.seed != plain.seed)
        continue;
      if (arm.run.setting("model.width") != plain.run.setting("model.width") ||
          arm.run.setting("tokenizer.max_tokens") != plain.run.setting("tokenizer.max_tokens") ||
          arm.run.setting("model.num_layers") != plain.run.setting("model.num_layers")) {
        continue;
      }
      const std::string remedy =
          arm.has_qk_norm ? (arm.is_clipped ? "clipping with QK-norm" : "QK-norm") : "clipping";
      (arm.diverged_step() ? lost : saved)[remedy].insert({arm.learning_rate, arm.name});
    }
  }
  if (saved.empty() && lost.empty()) {
    verdict.reason = "No unclipped softmax arm diverged that has a twin with clipping or QK-norm.";
    return verdict;
  }
  verdict.reason = "Where unclipped softmax diverged, its twin with";
  for (const std::string remedy : {"clipping", "QK-norm", "clipping with QK-norm"}) {
    if (!saved.contains(remedy) && !lost.contains(remedy)) continue;
    verdict.reason += fmt::format(" {} did not in {} of {};", remedy, saved[remedy].size(),
                                  saved[remedy].size() + lost[remedy].size());
  }
  verdict.reason.back() = '.';
  std::size_t num_saved = 0, num_lost = 0;
  for (const auto& [remedy, who] : saved) num_saved += who.size();
  for (const auto& [remedy, who] : lost) num_lost += who.size();
  verdict.word = num_saved == 0 ? Word::kReproduced : num_lost == 0 ? Word::kNotReproduced : Word::kMixed;
  return verdict;
}

}  // namespace

std::optional<int64_t> ArmData::diverged_step() const {
  const auto end = run.end();
  return end ? std::optional(end->step) : std::nullopt;
}

ArmData arm_data(std::string name, report::RunData run) {
  ArmData arm;
  arm.name = std::move(name);
  arm.learning_rate = run.number("optim.learning_rate");
  const double clip_norm = run.number("optim.clip_norm");
  if (run.setting("model.attention").empty() || !std::isfinite(arm.learning_rate) ||
      !std::isfinite(clip_norm)) {
    throw DataError("{}: its config.yaml has no model.attention, optim.learning_rate and optim.clip_norm",
                    run.folder.string());
  }
  arm.is_sigmoid = run.setting("model.attention") == "sigmoid";
  const std::string bias = run.setting("model.attention_bias"), qk_norm = run.setting("model.qk_norm");
  arm.has_default_bias = !arm.is_sigmoid || bias.empty() || bias == "negative_log_length";
  arm.has_qk_norm = !qk_norm.empty() && qk_norm != "none";
  arm.is_clipped = clip_norm > 0;
  arm.seed = run.setting("train.seed");
  static const std::set<std::string> kApart = {"run.dir",    "model.attention",   "optim.learning_rate",
                                               "train.seed", "train.num_threads", "data.num_workers"};
  for (const auto& [path, value] : run.config) {
    if (!kApart.contains(path)) arm.twin += path + "=" + value + "\n";
  }
  arm.spike = report::largest_spike(run);
  arm.run = std::move(run);
  return arm;
}

std::string_view text_of(Word word) {
  switch (word) {
    case Word::kReproduced:
      return "Reproduced";
    case Word::kNotReproduced:
      return "Not reproduced";
    case Word::kMixed:
      return "Mixed";
    case Word::kNotTestable:
      break;
  }
  return "Not testable at this budget";
}

std::vector<Verdict> judge(const std::vector<ArmData>& arms) {
  return {softmax_diverges_alone(arms), sigmoid_bears_higher_rates(arms), gradients_jump_alone(arms),
          sigmoid_stays_calm(arms),     scores_explode(arms),             derivatives_are_bounded(arms),
          other_remedies(arms)};
}

}  // namespace scrna::stress
