#include "lib/train/device_name.h"

#include <filesystem>
#include <fstream>
#include <set>

#include <fmt/format.h>

namespace scrna::train {
namespace {

// The text behind "key ... :" in a file of such lines.
std::string value_of(const std::filesystem::path& file, const std::string& key) {
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
    return begin == std::string::npos ? std::string() : line.substr(begin);
  }
  return {};
}

}  // namespace

std::string device_name(at::Device device) {
  if (device.is_cpu()) return value_of("/proc/cpuinfo", "model name");
  std::set<std::string> names;
  std::error_code problem;
  for (const auto& gpu : std::filesystem::directory_iterator("/proc/driver/nvidia/gpus", problem)) {
    if (std::string name = value_of(gpu.path() / "information", "Model"); !name.empty()) names.insert(std::move(name));
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace scrna::train
