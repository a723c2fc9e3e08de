#include "lib/data/gene_aliases.h"

#include <utility>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/core/utf8.h"

namespace scrna::data {
namespace {

constexpr std::string_view kHeader = "alias\tid";

struct Line {
  std::string alias, id;
};

Line split(std::string_view content, std::string_view file, int64_t number) {
  const std::size_t tab = content.find('\t');
  if (tab == content.npos || content.find('\t', tab + 1) != content.npos) {
    throw DataError("{}: line {}: expected an alias and an id, separated by one tab, got '{}'", file, number,
                    content);
  }
  Line line{std::string(content.substr(0, tab)), without_version(content.substr(tab + 1))};
  if (line.alias.empty() || line.id.empty())
    throw DataError("{}: line {}: the {} is empty", file, number, line.alias.empty() ? "alias" : "id");
  if (!is_one_line_of_text(line.alias) || !is_one_line_of_text(line.id))
    throw DataError("{}: line {}: expected text in UTF-8 without control characters", file, number);
  return line;
}

}  // namespace

GeneAliases GeneAliases::load(const std::filesystem::path& path) {
  return parse(read_file(path), path.string());
}

GeneAliases GeneAliases::parse(std::string_view text, std::string_view name) {
  GeneAliases aliases;
  int64_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = text.find('\n', begin);
    if (end == text.npos) end = text.size();
    std::string_view content = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (content.ends_with('\r')) content.remove_suffix(1);
    if (number == 1) {
      if (content != kHeader) {
        throw DataError(
            "{}: line 1: expected the column names 'alias' and 'id', separated by one tab, got '{}'", name,
            content);
      }
      continue;
    }
    Line line = split(content, name, number);
    const auto [entry, is_new] = aliases.id_of_.try_emplace(std::move(line.alias), line.id);
    if (!is_new && entry->second != line.id) {
      throw DataError(
          "{}: line {}: alias '{}' stands for '{}' here and for '{}' in an earlier line; keep one of them",
          name, number, entry->first, line.id, entry->second);
    }
  }
  if (aliases.id_of_.empty())
    throw DataError("{}: holds no alias; expected the line 'alias<tab>id' and one line per alias", name);
  return aliases;
}

int64_t GeneAliases::translate(GeneIds& genes) const {
  int64_t num_translated = 0;
  for (std::string& id : genes.ids) {
    const auto found = id_of_.find(id);
    if (found == id_of_.end()) continue;
    id = found->second;
    ++num_translated;
  }
  if (num_translated > 0) genes.type = type_of(genes.ids);
  return num_translated;
}

}  // namespace scrna::data
