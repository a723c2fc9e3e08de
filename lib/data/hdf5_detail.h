// What hdf5.cpp and hdf5_dataset.cpp share. Included by nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/data/hdf5.h"

namespace scrna::data::h5::detail {

/// deflate cannot shrink by more than 1032: what declares more than this times the size of its file, plus the
/// slack, is damaged or an attack, and is refused before memory is taken for it.
inline constexpr uint64_t kMaxExpansion = 2000;
inline constexpr uint64_t kSlackBytes = uint64_t{64} << 20;
inline bool exceeds_file(uint64_t bytes, uint64_t file_bytes) {
  return bytes > kSlackBytes && (bytes - kSlackBytes) / kMaxExpansion >= file_bytes;
}

/// Stops HDF5 from printing its error stack to stderr, once for each thread.
void silence();
/// The handle of an identifier, or DataError "what: HDF5's reason".
Handle checked(hid_t id, const std::string& what);
/// Makes access through these link (or data set, or group) access properties fail at an external link, also
/// when a soft link leads to one.
void stay_inside_file(hid_t access_properties);

using ReadInto = std::function<void(hid_t memory_type, hid_t transfer_properties, void* out)>;
/// `count` texts of a data set whose string type is `type`, fixed or variable length. `read_into` fills the
/// buffer it is given, whose elements have the given memory type. A read that would need more memory than a
/// file of `file_bytes` can hold in texts fails.
std::vector<std::string> read_texts(hid_t type, std::size_t count, uint64_t file_bytes,
                                    const ReadInto& read_into);
/// The same for an attribute, whose memory HDF5 takes by itself (its reads have no transfer properties).
std::vector<std::string> read_attribute_texts(hid_t type, std::size_t count, hid_t space,
                                              const ReadInto& read_into);

}  // namespace scrna::data::h5::detail
