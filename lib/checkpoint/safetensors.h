// safetensors files: 8 bytes little-endian header length, a JSON header (name -> dtype, shape, data_offsets; and
// "__metadata__", texts), then the raw data, which the tensors must tile without hole or overlap. Chosen over
// LibTorch's own archives because any Python reads it in one line and nothing in it is executed. Reading treats the
// file as hostile: every number is checked before it is used.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace scrna::checkpoint {

struct Safetensors {
  std::vector<std::pair<std::string, at::Tensor>> tensors;  // contiguous, any device; order is kept in the file
  std::map<std::string, std::string> metadata;
};

/// Writes through `write(data, bytes)`-style atomic file handling: the file is whole or absent. Throws DataError with the
/// system's reason (disk full ...), CheckpointError for a dtype that safetensors lacks.
void save_safetensors(const std::filesystem::path& path, const Safetensors& contents);

/// Tensors on the CPU. Throws CheckpointError naming the file and what is wrong with it.
Safetensors load_safetensors(const std::filesystem::path& path);

}  // namespace scrna::checkpoint
