// Which exit code and which words each kind of exception ends in.
#include "apps/scrna_train/failure.h"

#include <cstdlib>
#include <filesystem>
#include <new>
#include <stdexcept>
#include <string>

#include <c10/util/Exception.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "lib/core/files.h"
#include "tests/support/temp_dir.h"

namespace scrna::app {
namespace {

struct Told {
  ExitCode code;
  std::string text;
};

template <class E>
Told tell(const E& exception) {
  ::testing::internal::CaptureStderr();
  const ExitCode code = report_failure(std::make_exception_ptr(exception));
  return {code, ::testing::internal::GetCapturedStderr()};
}

template <class E>
void expect_told(const E& exception, ExitCode code, const std::string& part) {
  const Told told = tell(exception);
  EXPECT_EQ(static_cast<int>(told.code), static_cast<int>(code)) << told.text;
  EXPECT_EQ(told.text.rfind("scrna-train: error: ", 0), 0U) << told.text;
  EXPECT_NE(told.text.find(part), std::string::npos) << told.text;
  EXPECT_EQ(told.text.find('\n'), told.text.size() - 1) << "not one line: " << told.text;
}

c10::Error torch_error(const std::string& message) { return {c10::SourceLocation{"f", "a.cpp", 1}, message}; }

TEST(Failure, EachOfOurErrorsHasItsExitCode) {
  expect_told(ConfigError("a setting"), ExitCode::kUsage, "a setting");
  expect_told(DataError("a file"), ExitCode::kData, "a file");
  expect_told(CheckpointError("a checkpoint"), ExitCode::kData, "a checkpoint");
  expect_told(NumericError("a loss"), ExitCode::kNumeric, "a loss");
  expect_told(DeviceError("a GPU"), ExitCode::kDevice, "a GPU");
  expect_told(InternalError("an invariant"), ExitCode::kBug, "please report it: an invariant");
}

TEST(Failure, ErrorsOfLibTorchAreToldApart) {
  const c10::SourceLocation here{"f", "a.cpp", 1};
  expect_told(c10::OutOfMemoryError(here, "CUDA out of memory. Tried to allocate 2 GiB"), ExitCode::kDevice,
              "lower data.tokens_per_micro_batch");
  expect_told(torch_error("CUDA error: an illegal memory access was encountered"), ExitCode::kDevice,
              "illegal memory access");
  expect_told(torch_error("Found no NVIDIA driver on your system"), ExitCode::kDevice, "NVIDIA");
  expect_told(c10::DistBackendError(here, "NCCL error in: x"), ExitCode::kDevice, "NCCL");
  expect_told(torch_error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
              ExitCode::kBug, "memory is full");
  expect_told(torch_error("mat1 and mat2 shapes cannot be multiplied"), ExitCode::kBug,
              "please report it: mat1");
}

TEST(Failure, WhatTheStandardLibraryThrowsIsExplained) {
  expect_told(std::bad_alloc(), ExitCode::kBug, "memory is full");
  expect_told(std::filesystem::filesystem_error("cannot do it", "/some/path",
                                                std::make_error_code(std::errc::permission_denied)),
              ExitCode::kData, "/some/path: Permission denied");
  expect_told(std::runtime_error("surprise"), ExitCode::kBug, "please report it: surprise");
  expect_told(42, ExitCode::kBug, "unknown type");
}

TEST(Failure, TorchrunFindsTheMessageInItsFile) {
  const test::TempDir folder;
  const std::string path = (folder / "error.json").string();
  ::setenv("TORCHELASTIC_ERROR_FILE", path.c_str(), 1);
  expect_told(DataError("caf\xe9.h5ad: \"quoted\""), ExitCode::kData, "quoted");  // a byte that is not UTF-8
  ::unsetenv("TORCHELASTIC_ERROR_FILE");
  const auto content = nlohmann::json::parse(read_file(path));
  EXPECT_EQ(content["message"]["message"], "caf\xef\xbf\xbd.h5ad: \"quoted\"");
  EXPECT_FALSE(content["message"]["extraInfo"]["timestamp"].get<std::string>().empty());
}

}  // namespace
}  // namespace scrna::app
