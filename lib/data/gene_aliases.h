// Other names of genes: a table of two columns, alias and id, that translates symbols, retired ids or another
// annotation's ids before genes are looked up. One file serves all .h5ad files of a run and is applied once:
// an id that is itself an alias is not translated again. Format: lib/data/README.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>

#include "lib/data/gene_ids.h"

namespace scrna::data {

class GeneAliases {
 public:
  GeneAliases() = default;  // translates nothing
  /// Throws DataError naming the file, the line and what was expected; also for an alias with two different
  /// ids.
  static GeneAliases load(const std::filesystem::path& path);
  static GeneAliases parse(std::string_view text, std::string_view name_in_errors);

  [[nodiscard]] std::size_t size() const { return id_of_.size(); }
  /// Translates the ids that are aliases and decides anew which type most ids have. Returns how many it
  /// translated.
  int64_t translate(GeneIds& genes) const;

 private:
  std::unordered_map<std::string, std::string> id_of_;
};

}  // namespace scrna::data
