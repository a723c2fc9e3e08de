// Texts of fixed and of variable length. Elements of variable length refer to a heap in the file, and nothing
// keeps a million of them from referring to the same long text: a small file could ask for terabytes. So HDF5
// takes the memory of a data set's texts from an allocator of ours that has a budget: honest writers store
// every text once and uncompressed, hence all texts together are no larger than the file.
#include <algorithm>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "lib/core/error.h"
#include "lib/data/hdf5_detail.h"

namespace scrna::data::h5::detail {
namespace {

constexpr std::size_t kArenaBytes = std::size_t{64} << 10;

// Memory that is given in pieces and freed as a whole.
class TextMemory {
 public:
  explicit TextMemory(uint64_t budget_bytes) : left_(budget_bytes) {}
  // Null when the budget is spent: HDF5 then ends the read with an error.
  void* take(std::size_t num_bytes) noexcept {
    if (num_bytes > left_) return nullptr;
    if (num_bytes > room_) {
      const std::size_t size = std::max(num_bytes, kArenaBytes);
      try {
        blocks_.emplace_back(new char[size]);
      } catch (const std::bad_alloc&) {
        return nullptr;
      }
      next_ = blocks_.back().get();
      room_ = size;
    }
    left_ -= num_bytes;
    room_ -= num_bytes;
    return std::exchange(next_, next_ + num_bytes);
  }

 private:
  uint64_t left_;
  std::size_t room_ = 0;
  char* next_ = nullptr;
  std::vector<std::unique_ptr<char[]>> blocks_;
};

void* take_from(std::size_t num_bytes, void* memory) {
  return static_cast<TextMemory*>(memory)->take(num_bytes);
}
void keep_until_the_end(void*, void*) {}

// One text of a fixed-length field: up to the first NUL, without trailing spaces of space-padded strings.
std::string fixed_text(const char* data, std::size_t size, bool space_padded) {
  std::size_t length = 0;
  while (length < size && data[length] != '\0') ++length;
  while (space_padded && length > 0 && data[length - 1] == ' ') --length;
  return {data, length};
}

Handle variable_text_like(hid_t type) {
  Handle result(H5Tcopy(H5T_C_S1));
  H5Tset_size(result.get(), H5T_VARIABLE);
  H5Tset_cset(result.get(), H5Tget_cset(type));
  return result;
}

std::vector<std::string> texts_at(const std::vector<char*>& pointers) {
  std::vector<std::string> texts;
  texts.reserve(pointers.size());
  for (const char* text : pointers) texts.emplace_back(text != nullptr ? text : "");
  return texts;
}

std::vector<std::string> read_fixed(hid_t type, std::size_t count, const ReadInto& read_into) {
  const std::size_t size = H5Tget_size(type);
  std::vector<char> bytes(size * count);
  read_into(type, H5P_DEFAULT, bytes.data());
  const bool space_padded = H5Tget_strpad(type) == H5T_STR_SPACEPAD;
  std::vector<std::string> texts;
  texts.reserve(count);
  for (std::size_t i = 0; i < count; ++i)
    texts.push_back(fixed_text(bytes.data() + i * size, size, space_padded));
  return texts;
}

}  // namespace

std::vector<std::string> read_texts(hid_t type, std::size_t count, uint64_t file_bytes,
                                    const ReadInto& read_into) {
  if (H5Tis_variable_str(type) <= 0) return read_fixed(type, count, read_into);
  TextMemory memory(file_bytes + count);  // a terminator each
  const Handle transfer(H5Pcreate(H5P_DATASET_XFER));
  H5Pset_vlen_mem_manager(transfer.get(), &take_from, &memory, &keep_until_the_end, &memory);
  std::vector<char*> pointers(count, nullptr);
  read_into(variable_text_like(type).get(), transfer.get(), pointers.data());
  return texts_at(pointers);
}

std::vector<std::string> read_attribute_texts(hid_t type, std::size_t count, hid_t space,
                                              const ReadInto& read_into) {
  if (H5Tis_variable_str(type) <= 0) return read_fixed(type, count, read_into);
  const Handle memory_type = variable_text_like(type);
  std::vector<char*> pointers(count, nullptr);
  const auto reclaim = [&](void*) {
    H5Dvlen_reclaim(memory_type.get(), space, H5P_DEFAULT, pointers.data());
  };
  const std::unique_ptr<void, decltype(reclaim)> guard(pointers.data(), reclaim);  // also when reading throws
  read_into(memory_type.get(), H5P_DEFAULT, pointers.data());
  return texts_at(pointers);
}

}  // namespace scrna::data::h5::detail
