// The project's error types. A library function throws one of these; only the command-line layer (apps/) turns
// them into the exit codes that README.md documents. A message says the subject, what was expected, what was
// found, and what to do next.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace scrna {

/// Exit codes of the `scrna-train` program (README.md, "Exit codes").
enum class ExitCode : int {
  kDone = 0,
  kUsage = 2,             // command line or configuration
  kData = 3,              // an input file, or writing an output file
  kNumeric = 4,           // non-finite loss or gradients
  kDevice = 5,            // GPU or communication
  kBug = 70,              // an internal invariant does not hold
  kSavedAfterSignal = 143 // SIGTERM or SIGINT arrived, a checkpoint was saved
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

#define SCRNA_DEFINE_ERROR(Name, code)                                                        \
  class Name : public Error {                                                                 \
   public:                                                                                    \
    template <class... Args>                                                                  \
    explicit Name(fmt::format_string<Args...> format, Args&&... args)                         \
        : Error(code, fmt::format(format, std::forward<Args>(args)...)) {}                    \
  }

SCRNA_DEFINE_ERROR(ConfigError, ExitCode::kUsage);       // a wrong setting: exit code 2
SCRNA_DEFINE_ERROR(DataError, ExitCode::kData);          // a wrong or unreadable input file: exit code 3
SCRNA_DEFINE_ERROR(CheckpointError, ExitCode::kData);    // a wrong or damaged checkpoint: exit code 3
SCRNA_DEFINE_ERROR(NumericError, ExitCode::kNumeric);    // training diverged: exit code 4
SCRNA_DEFINE_ERROR(DeviceError, ExitCode::kDevice);      // CUDA, NCCL: exit code 5
SCRNA_DEFINE_ERROR(InternalError, ExitCode::kBug);       // our mistake: exit code 70
SCRNA_DEFINE_ERROR(Interrupted, ExitCode::kSavedAfterSignal);  // SIGTERM or SIGINT before there was anything to save: 143
#undef SCRNA_DEFINE_ERROR

}  // namespace scrna

/// Throws InternalError with file and line when `condition` is false. For our own invariants, never for user input.
#define SCRNA_CHECK(condition, ...)                                                                        \
  do {                                                                                                     \
    if (!(condition)) [[unlikely]]                                                                         \
      throw ::scrna::InternalError("{}:{}: check failed: {}: {}", __FILE__, __LINE__, #condition,          \
                                   ::fmt::format(__VA_ARGS__));                                            \
  } while (false)
