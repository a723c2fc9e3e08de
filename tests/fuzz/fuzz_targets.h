// What is fuzzed: each target turns bytes into one input of a reader and reads it. An input must end in data
// or in an error of the user; everything else (a signal, a sanitizer's report, an InternalError, an exception
// that is not ours) is a finding. Two programs drive the targets: libFuzzer, where clang is
// (libfuzzer_inputs, in a build with -fsanitize=fuzzer), and plain_driver.cpp everywhere else and in every
// test run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace scrna::fuzz {

struct Target {
  std::string_view name;
  /// Reads the input. Throws only what a finding is: every error of the user is caught inside.
  void (*run)(std::string_view input);
  /// Good inputs, made by our own writers, to begin with.
  std::vector<std::string> (*seeds)();
};
const std::vector<Target>& targets();
/// nullptr for a name that is none.
const Target* find_target(std::string_view name);

/// Calls `read`; errors of the user end here, an InternalError and everything else goes on.
void expect_data_or_refusal(void (*read)(std::string_view), std::string_view input);

/// A file of this process in memory (/dev/shm where there is one), written again for each input; removed when
/// the process ends.
class ScratchFile {
 public:
  explicit ScratchFile(std::string_view suffix);
  ~ScratchFile();
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  const std::string& write(std::string_view bytes) const;  // returns the path
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// Numbers and choices from the bytes of an input; zeros when they are used up.
class Choices {
 public:
  explicit Choices(std::string_view bytes) : bytes_(bytes) {}
  uint8_t byte() { return at_ < bytes_.size() ? static_cast<uint8_t>(bytes_[at_++]) : uint8_t{0}; }
  uint64_t below(uint64_t bound) { return bound == 0 ? 0 : byte() % bound; }
  bool one_in(uint64_t n) { return below(n) == n - 1; }
  /// Mostly small, sometimes one of the numbers that break things.
  int64_t number();
  std::string text();
  [[nodiscard]] bool is_used_up() const { return at_ >= bytes_.size(); }
  std::string_view rest() { return at_ < bytes_.size() ? bytes_.substr(at_) : std::string_view(); }

 private:
  std::string_view bytes_;
  std::size_t at_ = 0;
};

// One file each.
void run_h5ad_tables(std::string_view input);
std::vector<std::string> seeds_h5ad_tables();
void run_sparse_arrays(std::string_view input);
std::vector<std::string> seeds_sparse_arrays();
void run_cache(std::string_view input);
std::vector<std::string> seeds_cache();

}  // namespace scrna::fuzz
