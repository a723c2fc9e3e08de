// Monotonic time in seconds.
#pragma once

#include <chrono>

namespace scrna {

inline double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Adds the seconds of its lifetime to a total: `{ ScopedTimer timer(seconds.forward); ... }`.
class ScopedTimer {
 public:
  explicit ScopedTimer(double& total_seconds) : total_seconds_(total_seconds), start_seconds_(now_seconds()) {}
  ~ScopedTimer() { total_seconds_ += now_seconds() - start_seconds_; }
  ScopedTimer(const ScopedTimer&) = delete;
  ScopedTimer& operator=(const ScopedTimer&) = delete;

 private:
  double& total_seconds_;
  double start_seconds_;
};

}  // namespace scrna
