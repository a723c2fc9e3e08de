// Reads a safetensors file and writes what it read to another: Python writes the first and reads the second.
//   safetensors_copy FROM TO
#include <iostream>

#include "lib/checkpoint/safetensors.h"
#include "lib/core/error.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: safetensors_copy FROM TO\n";
    return 2;
  }
  try {
    scrna::checkpoint::save_safetensors(argv[2], scrna::checkpoint::load_safetensors(argv[1]));
  } catch (const scrna::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.code());
  }
  return 0;
}
