// What a measurement was taken on, for the head of a table and for JSON.
#pragma once

#include <string>

namespace scrna::bench {

struct Machine {
  std::string name;                // of the GPU, or of the processor
  int num_threads = 0;             // that LibTorch and our CPU kernels use
  std::string cpu_vectors;         // instruction set of our CPU kernels
  std::string compute_capability;  // "9.0"; empty: no GPU was used
  int num_multiprocessors = 0;
  double memory_gib = 0;
  std::string driver;        // "580.65.06", or empty where the system does not say
  std::string cuda_driver;   // newest CUDA the driver knows, "13.0"
  std::string cuda_runtime;  // "13.0"
  std::string cudnn;         // "9.13.0"
};

Machine gpu_machine();
Machine cpu_machine();

}  // namespace scrna::bench
