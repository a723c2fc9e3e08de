#include "lib/checkpoint/safetensors.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/files.h"

namespace scrna::checkpoint {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the reference implementation
constexpr int kMaxJsonDepth = 4;                   // header, tensor, shape: nesting takes 50 times its text in memory
constexpr std::size_t kMaxDimensions = 64;         // of LibTorch

struct TypeName {
  const char* name;
  at::ScalarType type;
};
constexpr std::array kTypes = {TypeName{"F64", at::kDouble}, TypeName{"F32", at::kFloat},  TypeName{"F16", at::kHalf},
                               TypeName{"BF16", at::kBFloat16}, TypeName{"I64", at::kLong}, TypeName{"I32", at::kInt},
                               TypeName{"I16", at::kShort},  TypeName{"I8", at::kChar},    TypeName{"U8", at::kByte},
                               TypeName{"BOOL", at::kBool}};

// The product of dimensions and element size, or false when it does not fit 63 bits, zeros aside: LibTorch
// multiplies the others to strides.
bool byte_count(const std::vector<int64_t>& shape, std::size_t element_bytes, int64_t& out) {
  int64_t bytes = static_cast<int64_t>(element_bytes);
  bool is_empty = false;
  for (const int64_t dimension : shape) {
    is_empty = is_empty || dimension == 0;
    if (dimension < 0 || __builtin_mul_overflow(bytes, std::max<int64_t>(dimension, 1), &bytes)) return false;
  }
  out = is_empty ? 0 : bytes;
  return true;
}

struct Extent {
  std::string name;
  at::ScalarType type = at::kFloat;
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;
};

Extent read_extent(const std::string& file, const std::string& name, const Json& entry) {
  Extent extent{.name = name};
  try {
    const std::string type = entry.at("dtype").get<std::string>();
    const auto known = std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeName& t) { return type == t.name; });
    if (known == kTypes.end()) throw CheckpointError("{}: tensor '{}' has unknown dtype '{}'", file, name, type);
    extent.type = known->type;
    const Json& shape = entry.at("shape");
    if (!shape.is_array() || shape.size() > kMaxDimensions) {
      throw CheckpointError("{}: the shape of tensor '{}' is not a list of at most {} sizes", file, name, kMaxDimensions);
    }
    for (const Json& dimension : shape) {
      if (!dimension.is_number_unsigned()) throw CheckpointError("{}: tensor '{}' has a negative or fractional dimension", file, name);
      extent.shape.push_back(dimension.get<int64_t>());
    }
    const Json& offsets = entry.at("data_offsets");
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() || !offsets[1].is_number_unsigned()) {
      throw CheckpointError("{}: tensor '{}' has no valid data_offsets", file, name);
    }
    extent.begin = offsets[0].get<int64_t>();
    extent.end = offsets[1].get<int64_t>();
  } catch (const Json::exception&) {
    throw CheckpointError("{}: the entry of tensor '{}' is not dtype, shape, data_offsets", file, name);
  }
  int64_t bytes = 0;
  if (!byte_count(extent.shape, c10::elementSize(extent.type), bytes) || extent.begin < 0 ||
      extent.end < extent.begin || extent.end - extent.begin != bytes) {
    throw CheckpointError("{}: tensor '{}' spans bytes {} to {}, which its shape does not fill", file, name, extent.begin, extent.end);
  }
  return extent;
}

// The header, or a discarded value when it is not JSON or deeper than a header is.
Json parse_header(const std::string& text) {
  bool is_too_deep = false;
  const auto look = [&](int depth, Json::parse_event_t, Json&) {
    is_too_deep = is_too_deep || depth > kMaxJsonDepth;
    return !is_too_deep;  // drops what follows, so that it takes no memory
  };
  Json header = Json::parse(text, look, /*allow_exceptions=*/false);
  return is_too_deep ? Json(Json::value_t::discarded) : header;
}

void read_metadata(const std::string& file, const Json& entry, std::map<std::string, std::string>& out) {
  if (!entry.is_object()) throw CheckpointError("{}: __metadata__ is not an object", file);
  for (const auto& [key, value] : entry.items()) {
    if (!value.is_string()) throw CheckpointError("{}: metadata '{}' is not text", file, key);
    out[key] = value.get<std::string>();
  }
}

// Memory for a tensor whose bytes are known to be in the file.
at::Tensor empty_tensor(const std::string& file, const Extent& extent) {
  try {
    return at::empty(extent.shape, extent.type);
  } catch (const std::exception& problem) {  // LibTorch's own kind, or no memory
    throw CheckpointError("{}: tensor '{}' of {} bytes does not fit into memory: {}", file, extent.name,
                          extent.end - extent.begin, problem.what());
  }
}

}  // namespace

void save_safetensors(const std::filesystem::path& path, const Safetensors& contents) {
  Json header = Json::object();
  if (!contents.metadata.empty()) header["__metadata__"] = contents.metadata;
  int64_t offset = 0;
  for (const auto& [name, tensor] : contents.tensors) {
    const auto known = std::find_if(kTypes.begin(), kTypes.end(), [&, type = tensor.scalar_type()](const TypeName& t) { return t.type == type; });
    if (known == kTypes.end()) throw CheckpointError("{}: tensor '{}' has a dtype that safetensors lacks", path.string(), name);
    const int64_t end = offset + static_cast<int64_t>(tensor.nbytes());
    header[name] = {{"dtype", known->name}, {"shape", tensor.sizes().vec()}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // data starts at a multiple of 8, as the reference writes it
  const uint64_t header_bytes = text.size();
  AtomicFile file(path);
  file.write(&header_bytes, sizeof header_bytes);
  file.write(text);
  for (const auto& [name, tensor] : contents.tensors) {
    const at::Tensor host = tensor.detach().to(at::kCPU).contiguous();
    file.write(host.const_data_ptr(), host.nbytes());
  }
  file.commit();
}

Safetensors load_safetensors(const std::filesystem::path& path) {
  const std::string file = path.string();
  std::ifstream stream(path, std::ios::binary);
  std::error_code problem;
  const uint64_t file_bytes = std::filesystem::file_size(path, problem);
  if (!stream || problem) throw CheckpointError("{}: cannot read the file: {}", file, problem ? problem.message() : std::strerror(errno));
  uint64_t header_bytes = 0;
  if (!stream.read(reinterpret_cast<char*>(&header_bytes), sizeof header_bytes)) {
    throw CheckpointError("{}: shorter than 8 bytes; not a safetensors file", file);
  }
  if (header_bytes > kMaxHeaderBytes || file_bytes < 8 || header_bytes > file_bytes - 8) {
    throw CheckpointError("{}: says its header has {} bytes, but the file has {}; not a safetensors file or truncated", file,
                          header_bytes, file_bytes);
  }
  std::string text(header_bytes, '\0');
  if (!stream.read(text.data(), static_cast<std::streamsize>(header_bytes))) throw CheckpointError("{}: reading the header stopped", file);
  const Json header = parse_header(text);
  if (!header.is_object()) throw CheckpointError("{}: the header is not a JSON object", file);

  Safetensors result;
  std::vector<Extent> extents;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      read_metadata(file, entry, result.metadata);
    } else {
      extents.push_back(read_extent(file, name, entry));
    }
  }
  std::vector<const Extent*> by_offset;
  for (const Extent& extent : extents) by_offset.push_back(&extent);
  std::sort(by_offset.begin(), by_offset.end(), [](const Extent* a, const Extent* b) { return std::pair(a->begin, a->end) < std::pair(b->begin, b->end); });
  int64_t covered = 0;
  for (const Extent* extent : by_offset) {
    if (extent->begin != covered) {
      throw CheckpointError("{}: tensor '{}' begins at byte {}, expected {} (a hole or an overlap)", file, extent->name, extent->begin, covered);
    }
    covered = extent->end;
  }
  const auto data_bytes = static_cast<int64_t>(file_bytes - 8 - header_bytes);
  if (covered != data_bytes) {
    throw CheckpointError("{}: {} bytes of tensors are declared, {} are there; the file is truncated or damaged", file, covered, data_bytes);
  }
  for (const Extent& extent : extents) {
    at::Tensor tensor = empty_tensor(file, extent);
    stream.seekg(static_cast<std::streamoff>(8 + header_bytes) + extent.begin);
    if (tensor.nbytes() > 0 && !stream.read(static_cast<char*>(tensor.mutable_data_ptr()), static_cast<std::streamsize>(tensor.nbytes()))) {
      throw CheckpointError("{}: reading tensor '{}' stopped", file, extent.name);
    }
    result.tensors.emplace_back(extent.name, tensor);
  }
  return result;
}

}  // namespace scrna::checkpoint
