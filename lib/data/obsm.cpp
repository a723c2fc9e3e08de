#include "lib/data/obsm.h"

#include <algorithm>
#include <cmath>
#include <mutex>

#include "lib/core/error.h"
#include "lib/core/suggest.h"
#include "lib/data/hdf5.h"

namespace scrna::data {
namespace {

std::vector<std::string> keys_of(const h5::Group& root) {
  if (root.kind_of("obsm") != h5::ObjectKind::kGroup) return {};
  return root.group("obsm").members();
}

[[noreturn]] void refuse_key(const h5::Group& root, const std::string& key) {
  const std::vector<std::string> keys = keys_of(root);
  if (keys.empty()) throw DataError("{} has no obsm/{}: its obsm is empty or absent", root.where(), key);
  const std::string near = nearest_name(key, keys);
  throw DataError("{} has no obsm/{}{}; obsm holds {}", root.where(), key,
                  near.empty() ? "" : fmt::format(" (did you mean '{}'?)", near), fmt::join(keys, ", "));
}

/// Rows are finite, or NaN as a whole.
void check_finite(const ObsmMatrix& matrix, const std::string& where) {
  int64_t wrong_rows = 0, first = -1;
  for (int64_t row = 0; row < matrix.cells; ++row) {
    const auto begin = matrix.values.begin() + row * matrix.width, end = begin + matrix.width;
    const bool is_finite = std::all_of(begin, end, [](float value) { return std::isfinite(value); });
    if (is_finite || std::all_of(begin, end, [](float value) { return std::isnan(value); })) continue;
    if (wrong_rows++ == 0) first = row;
  }
  if (wrong_rows > 0)
    throw DataError("{}: {} of {} rows have some values that are not finite (first: row {}); a row is an embedding, or NaN as a "
                    "whole for a cell without one: drop those cells from the file, or compute them again",
                    where, wrong_rows, matrix.cells, first);
}

/// Of obsm/KEY, which must be there.
h5::ObjectKind required_kind(const h5::Group& root, const std::string& key) {
  const h5::ObjectKind kind =
      root.kind_of("obsm") == h5::ObjectKind::kGroup ? root.kind_of("obsm/" + key) : h5::ObjectKind::kMissing;
  if (key.empty() || kind == h5::ObjectKind::kMissing) refuse_key(root, key);
  return kind;
}

}  // namespace

std::vector<std::string> obsm_keys(const std::filesystem::path& path) {
  const std::lock_guard lock(h5::hdf5_mutex());
  return keys_of(h5::open_file(path));
}

void require_obsm(const std::filesystem::path& path, const std::string& key) {
  const std::lock_guard lock(h5::hdf5_mutex());
  required_kind(h5::open_file(path), key);
}

ObsmMatrix read_obsm(const std::filesystem::path& path, const std::string& key) {
  const std::lock_guard lock(h5::hdf5_mutex());
  const h5::Group root = h5::open_file(path);
  const std::string member = "obsm/" + key;
  if (required_kind(root, key) == h5::ObjectKind::kGroup)
    throw DataError("{}:/{} is a {}; only dense matrices can be read as an embedding: adata.obsm['{}'] = numpy.asarray(...)",
                    root.where(), member, root.text_attribute("encoding-type", member).value_or("group"), key);
  const h5::Dataset values = root.dataset(member);
  const std::vector<uint64_t>& shape = values.shape();
  if (shape.size() != 2 || shape[1] == 0 || values.is_text() || values.number_kind() == h5::NumberKind::kNone)
    throw DataError("{}: expected numbers, cells x dimensions; got {} of shape [{}]", values.where(), values.type_name(),
                    fmt::join(shape, ", "));
  ObsmMatrix out{static_cast<int64_t>(shape[0]), static_cast<int64_t>(shape[1]), {}};
  out.values.resize(values.num_elements());
  values.read_rows(0, shape[0], out.values.data());
  check_finite(out, values.where());
  return out;
}

}  // namespace scrna::data
