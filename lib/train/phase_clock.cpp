#include "lib/train/phase_clock.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include "lib/core/clock.h"

namespace scrna::train {

PhaseClock::PhaseClock(at::Device device) : device_(device) { mark(nullptr); }

void PhaseClock::end(Phase phase) { mark(phase); }

void PhaseClock::mark(Phase phase) {
  Mark& mark = marks_.emplace_back();
  mark.phase = phase;
  if (device_.is_cpu()) {
    mark.host_seconds = now_seconds();
    return;
  }
  mark.event.emplace(device_.type(), c10::EventFlag::BACKEND_DEFAULT);  // with times
  mark.event->record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
}

void PhaseClock::wait() const {
  if (marks_.back().event) marks_.back().event->synchronize();
}

void PhaseClock::add_to(PhaseSeconds& seconds) const {
  for (std::size_t i = 1; i < marks_.size(); ++i)
    seconds.*marks_[i].phase += seconds_between(marks_[i - 1], marks_[i]);
}

double PhaseClock::span_seconds() const { return seconds_between(marks_.front(), marks_.back()); }

double PhaseClock::seconds_after(const PhaseClock& before) const {
  return seconds_between(before.marks_.back(), marks_.front());
}

double PhaseClock::seconds_between(const Mark& begin, const Mark& end) const {
  return device_.is_cpu() ? end.host_seconds - begin.host_seconds
                          : 1e-3 * begin.event->elapsedTime(*end.event);
}

}  // namespace scrna::train
