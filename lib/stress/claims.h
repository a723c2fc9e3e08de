// What a table of arms says to the claims of arXiv 2604.27124 on stability. Each claim gets one of four
// words:
//
//   reproduced         what was claimed was seen, and nothing against it
//   not reproduced     the opposite was seen, or it failed to appear under the paper's own conditions
//   mixed              seen in some arms, the opposite in others
//   not testable here  no arms that could show it, or too few steps for an absence to mean anything
//
// and the numbers that this rests on. The rules are in claims.cpp, one function a claim; they are ours, the
// paper states none. Its softmax run diverged at step 55,600: a calm run that is shorter proves nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/report/run_data.h"
#include "lib/report/spike.h"

namespace scrna::stress {

/// An arm that has ended or got somewhere, with the settings that the claims depend on.
struct ArmData {
  std::string name;
  report::RunData run;
  bool is_sigmoid = true;
  bool has_default_bias = true;  // -log n
  bool is_clipped = false;
  bool has_qk_norm = false;
  double learning_rate = 0;
  std::string twin;  // all settings but attention and learning rate
  std::string seed;
  report::Spike spike;  // of its gradient norm

  [[nodiscard]] std::optional<int64_t> diverged_step() const;
  [[nodiscard]] bool has_ended() const { return diverged_step().has_value() || run.is_finished(); }
};

/// Reads what it needs from the run's configuration. Throws DataError when the run has none of these
/// settings.
ArmData arm_data(std::string name, report::RunData run);

enum class Word { kReproduced, kNotReproduced, kMixed, kNotTestable };
std::string_view text_of(Word word);

struct Verdict {
  std::string claim;
  Word word = Word::kNotTestable;
  std::string reason;
};

constexpr int64_t kPaperDivergenceStep = 55600;
/// A gradient norm so many times its running median is a jump, on the way to a divergence, which is 1,000 times
/// (monitor.explosion_factor). Ours, not the paper's; a calm run's noise stays below.
constexpr double kJump = 10;

/// One verdict for each claim, in a fixed order.
std::vector<Verdict> judge(const std::vector<ArmData>& arms);

}  // namespace scrna::stress
