// Exceptions to exit codes and one line on stderr: the only place that does it.
#pragma once

#include <exception>

#include "lib/core/error.h"

namespace scrna::app {

/// Prints "scrna-train: error: ..." (also to the run's log.txt) and returns the exit code.
ExitCode report_failure(const std::exception_ptr& failure);

}  // namespace scrna::app
