// Drives the fuzz targets without libFuzzer: seeds damaged at random, in one process, a given number of
// times. For every test run and for compilers that have no libFuzzer; a finding ends the program by the
// exception or signal it is, after the input was written to CRASH_FILE.
//   fuzz_inputs TARGET EXECUTIONS SEED [CRASH_FILE]      fuzz_inputs --list
//   fuzz_inputs TARGET --input FILE                      one input, for example a finding of libFuzzer
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/log.h"
#include "tests/fuzz/fuzz_targets.h"

namespace {

using Random = std::mt19937_64;

std::string damage(const std::vector<std::string>& seeds, Random& random) {
  std::string bytes = seeds[random() % seeds.size()];
  const uint64_t num_edits = random() % 9;
  for (uint64_t edit = 0; edit < num_edits; ++edit) {
    const std::size_t at = bytes.empty() ? 0 : random() % bytes.size();
    const std::size_t count = std::min<std::size_t>(random() % 9, bytes.size() - at);
    switch (random() % 7) {
      case 0:
        bytes.insert(at, 1 + random() % 4, static_cast<char>(random()));
        break;
      case 1:
        bytes.erase(at, count);
        break;
      case 2:
        bytes.replace(at, count, std::string(count, random() % 2 == 0 ? '\xff' : '\0'));
        break;
      case 3:  // a piece of another seed
        bytes.insert(at, seeds[random() % seeds.size()].substr(0, random() % 33));
        break;
      case 4:
        bytes.insert(at, bytes.substr(at, count));
        break;
      default:
        if (!bytes.empty()) bytes[at] = static_cast<char>(random());
    }
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace scrna;
  log::set_console_level(log::Level::kError);
  if (argc == 2 && std::string_view(argv[1]) == "--list") {
    for (const fuzz::Target& target : fuzz::targets()) std::cout << target.name << "\n";
    return 0;
  }
  const fuzz::Target* target = argc >= 4 ? fuzz::find_target(argv[1]) : nullptr;
  if (target == nullptr) {
    std::cerr << "usage: fuzz_inputs TARGET EXECUTIONS SEED [CRASH_FILE] | TARGET --input FILE | --list\n";
    return 2;
  }
  if (std::string_view(argv[2]) == "--input") {
    fuzz::expect_data_or_refusal(target->run, read_file(argv[3]));
    return 0;
  }
  const int64_t executions = std::atoll(argv[2]);
  Random random(std::strtoull(argv[3], nullptr, 10));
  const std::vector<std::string> seeds = target->seeds();
  const double start = now_seconds();
  for (int64_t i = 0; i < executions; ++i) {
    const std::string input = damage(seeds, random);
    if (argc > 4) std::ofstream(argv[4], std::ios::binary) << input;
    fuzz::expect_data_or_refusal(target->run, input);
  }
  if (argc > 4) std::remove(argv[4]);
  std::cout << fmt::format("{}: {} executions in {:.1f} s\n", target->name, executions,
                           now_seconds() - start);
  return 0;
}
