// How long the phases of a step take on the device that works on them. On a GPU the host runs ahead, so its
// clock says nothing: events are recorded between the phases on the current stream and read when the step is
// finished anyway. Steps are enqueued one behind the other, so the time between the ends of two of them is
// what one costs; the host's clock between two reads is not: it learns of an end when it comes round to ask.
#pragma once

#include <optional>
#include <vector>

#include <c10/core/Device.h>
#include <c10/core/Event.h>

namespace scrna::train {

struct PhaseSeconds {
  double data_wait = 0;  // of the host
  double idle = 0;       // before the step: the device had nothing to do
  double forward = 0;    // with the head's gradients, which are made while its logits exist
  double backward = 0;
  double reduce = 0;     // sums over the ranks, as far as the backward pass does not hide them
  double optimizer = 0;  // gradient norms, clipping and AdamW
  double total = 0;      // idle and everything from the step's first mark to its last
};

class PhaseClock {
 public:
  using Phase = double PhaseSeconds::*;

  /// The first phase begins now, or when the GPU gets here.
  explicit PhaseClock(at::Device device);
  /// What was done since the last mark belongs to `phase`.
  void end(Phase phase);
  /// Waits until the device has passed the last mark.
  void wait() const;
  /// Adds the phases' seconds; after wait().
  void add_to(PhaseSeconds& seconds) const;
  /// Seconds from the first mark to the last; after wait().
  [[nodiscard]] double span_seconds() const;
  /// Seconds from the last mark of `before` to the first of this, of the same device and stream; after wait()
  /// of both.
  [[nodiscard]] double seconds_after(const PhaseClock& before) const;

 private:
  struct Mark {
    Phase phase = nullptr;
    double host_seconds = 0;          // on the CPU
    std::optional<c10::Event> event;  // on a GPU
  };
  void mark(Phase phase);
  [[nodiscard]] double seconds_between(const Mark& begin, const Mark& end) const;

  at::Device device_;
  std::vector<Mark> marks_;
};

}  // namespace scrna::train
