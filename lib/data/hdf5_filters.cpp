#include "lib/data/hdf5_filters.h"

#include <algorithm>
#include <array>
#include <string_view>

#include <fmt/format.h>

namespace scrna::data::h5 {
namespace {

struct KnownFilter {
  H5Z_filter_t id;
  std::string_view name;
  std::string_view debian;  // package with a plugin that HDF5 loads by itself; empty: none
};

// Numbers as registered with The HDF Group. The Python package hdf5plugin (and conda's
// hdf5-external-filter-plugins) has all of them but szip, nbit and scale-offset, which are options of HDF5's
// own build.
constexpr std::array kKnownFilters = {
    KnownFilter{307, "bzip2", "hdf5-filter-plugin"},
    KnownFilter{32001, "blosc", "hdf5-filter-plugin-blosc-serial"},
    KnownFilter{32004, "lz4", "hdf5-filter-plugin"},
    KnownFilter{32008, "bitshuffle", "hdf5-filter-plugin"},
    KnownFilter{32013, "zfp", "hdf5-filter-plugin-zfp-serial"},
    KnownFilter{32015, "zstd", ""},
    KnownFilter{32017, "sz", ""},
    KnownFilter{32018, "fcidecomp", ""},
    KnownFilter{32024, "sz3", ""},
    KnownFilter{32026, "blosc2", ""},
    KnownFilter{32028, "sperr", ""},
};
constexpr std::string_view kRewrite =
    "or rewrite the file with gzip, in Python: import hdf5plugin, anndata; "
    "anndata.read_h5ad(path).write_h5ad(new_path, compression='gzip')";

}  // namespace

std::string missing_filter(hid_t properties) {
  const int count = H5Pget_nfilters(properties);
  for (int i = 0; i < count; ++i) {
    unsigned flags = 0;
    std::size_t num_values = 0;
    std::array<char, 64> name{};
    const H5Z_filter_t filter = H5Pget_filter2(properties, static_cast<unsigned>(i), &flags, &num_values,
                                               nullptr, name.size(), name.data(), nullptr);
    name.back() = '\0';
    if (H5Zfilter_avail(filter) > 0) continue;
    H5Eclear2(H5E_DEFAULT);
    if (filter < H5Z_FILTER_RESERVED) {  // szip and the like
      return fmt::format(
          "is compressed with HDF5's own filter {}, which this machine's HDF5 was built without; rewrite the "
          "file with "
          "gzip where it can be read: adata.write_h5ad(path, compression='gzip')",
          filter == H5Z_FILTER_SZIP ? "szip" : std::to_string(filter));
    }
    const auto* const known = std::find_if(kKnownFilters.begin(), kKnownFilters.end(),
                                           [&](const KnownFilter& each) { return each.id == filter; });
    if (known == kKnownFilters.end()) {
      return fmt::format(
          "is compressed with filter {} ({}), which this machine's HDF5 lacks; install its plugin and name "
          "its folder "
          "in HDF5_PLUGIN_PATH, {}",
          static_cast<int>(filter), name[0] != '\0' ? name.data() : "unnamed", kRewrite);
    }
    return fmt::format(
        "is compressed with {} (filter {}), which this machine's HDF5 lacks; install its plugin ({}the "
        "Python package "
        "hdf5plugin, whose folder hdf5plugin.PLUGIN_PATH goes into HDF5_PLUGIN_PATH), {}",
        known->name, static_cast<int>(filter),
        known->debian.empty() ? "" : fmt::format("Debian's {}, or ", known->debian), kRewrite);
  }
  return {};
}

}  // namespace scrna::data::h5
