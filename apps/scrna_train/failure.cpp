#include "apps/scrna_train/failure.h"

#include <filesystem>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include <c10/util/Exception.h>

#include "lib/core/log.h"
#include "lib/dist/error_file.h"

namespace scrna::app {
namespace {

template <class... Args>
void tell(fmt::format_string<Args...> format, Args&&... args) {
  const std::string message = fmt::format(format, std::forward<Args>(args)...);
  log::write_failure(message);
  dist::write_error_file(message);
}

bool mentions(std::string_view text, std::string_view word) {
  return text.find(word) != std::string_view::npos;
}

ExitCode report_full_memory() {
  tell(
      "the machine's memory is full; for training, lower data.tokens_per_micro_batch or choose a smaller "
      "model");
  return ExitCode::kBug;
}

// LibTorch throws one family of exceptions for the GPU's trouble, the network's and our own mistakes.
ExitCode report(const c10::Error& problem) {
  const std::string_view what = problem.what_without_backtrace();
  if (dynamic_cast<const c10::OutOfMemoryError*>(&problem) != nullptr ||
      mentions(what, "CUDA out of memory")) {
    tell("the GPU's memory is full; lower data.tokens_per_micro_batch or choose a smaller model ({})", what);
    return ExitCode::kDevice;
  }
  if (mentions(what, "can't allocate memory")) return report_full_memory();
  if (dynamic_cast<const c10::DistError*>(&problem) != nullptr || mentions(what, "CUDA") ||
      mentions(what, "NVIDIA") || mentions(what, "NCCL") || mentions(what, "cuBLAS") ||
      mentions(what, "CUBLAS")) {
    tell("the GPU or the communication failed: {}", what);
    return ExitCode::kDevice;
  }
  tell("internal error in LibTorch, please report it: {}", what);
  return ExitCode::kBug;
}

}  // namespace

ExitCode report_failure(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& problem) {
    tell("{}{}", problem.code() == ExitCode::kBug ? "internal error, please report it: " : "",
         problem.what());
    return problem.code();
  } catch (const c10::Error& problem) {
    return report(problem);
  } catch (const std::bad_alloc&) {
    return report_full_memory();
  } catch (const std::filesystem::filesystem_error& problem) {
    tell("{}: {}", problem.path1().string(), problem.code().message());
    return ExitCode::kData;
  } catch (const std::exception& problem) {
    tell("internal error, please report it: {}", problem.what());
  } catch (...) {
    tell("internal error, please report it: an exception of unknown type");
  }
  return ExitCode::kBug;
}

}  // namespace scrna::app
