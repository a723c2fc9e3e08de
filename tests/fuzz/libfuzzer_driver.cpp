// Drives the fuzz targets by libFuzzer (clang, -fsanitize=fuzzer): coverage decides which inputs are damaged
// further.
//   SCRNA_FUZZ_TARGET=yaml libfuzzer_inputs -runs=1000000 CORPUS_FOLDER        the folder first gets the
//   seeds of the target
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "lib/core/log.h"
#include "tests/fuzz/fuzz_targets.h"

namespace {
const scrna::fuzz::Target* target = nullptr;
}

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  scrna::log::set_console_level(scrna::log::Level::kError);
  const char* name = std::getenv("SCRNA_FUZZ_TARGET");
  target = name == nullptr ? nullptr : scrna::fuzz::find_target(name);
  if (target == nullptr) {
    std::cerr << "SCRNA_FUZZ_TARGET: expected one of";
    for (const scrna::fuzz::Target& each : scrna::fuzz::targets()) std::cerr << " " << each.name;
    std::cerr << "\n";
    std::exit(2);
  }
  for (int i = 1; i < *argc; ++i) {
    if ((*argv)[i][0] == '-' || !std::filesystem::is_directory((*argv)[i])) continue;
    int num_seeds = 0;
    for (const std::string& seed : target->seeds())
      std::ofstream(std::filesystem::path((*argv)[i]) / ("seed-" + std::to_string(num_seeds++)),
                    std::ios::binary)
          << seed;
    break;
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, std::size_t size) {
  scrna::fuzz::expect_data_or_refusal(target->run, {reinterpret_cast<const char*>(bytes), size});
  return 0;
}
