#include "lib/data/gene_ids.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <utility>

#include "lib/core/error.h"
#include "lib/core/utf8.h"

namespace scrna::data {
namespace {

bool all_digits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

// The id without ".version", if what follows the dot is a number.
std::string_view stem(std::string_view id) {
  const std::size_t dot = id.rfind('.');
  return dot != std::string_view::npos && all_digits(id.substr(dot + 1)) ? id.substr(0, dot) : id;
}

bool looks_like_symbol(std::string_view id) {
  return !id.empty() && id.size() <= 40 && std::isalpha(static_cast<unsigned char>(id[0])) != 0;
}

// Bytes of "GRCh38_" or "mm10___" before a name; 0 when there is no such thing.
std::size_t genome_prefix_bytes(std::string_view text) {
  const std::size_t bar = text.find('_');
  if (bar == text.npos || bar < 2 || std::isalpha(static_cast<unsigned char>(text[0])) == 0) return 0;
  const std::string_view genome = text.substr(0, bar);
  const auto is_of_a_name = [](unsigned char c) { return std::isalnum(c) != 0 || c == '.' || c == '-'; };
  if (!std::all_of(genome.begin(), genome.end(), is_of_a_name)) return 0;
  const bool has_digit = genome.find_first_of("0123456789") != genome.npos;
  if (!has_digit && genome != "human" && genome != "mouse") return 0;
  const std::size_t name = text.find_first_not_of('_', bar);
  return name != text.npos && std::isalpha(static_cast<unsigned char>(text[name])) != 0 ? name : 0;
}

GeneIds make(std::vector<std::string> ids, std::string source, const AnnDataFile& file) {
  for (std::size_t gene = 0; gene < ids.size(); ++gene) {
    if (is_one_line_of_text(ids[gene])) continue;
    throw DataError(
        "{}: gene {} (counted from 0) of {} has an id that is no text: tabs, control characters or no "
        "UTF-8; repair it, or set data.gene_column to another column",
        file.path().string(), gene, source);
  }
  GeneIds result{.ids = std::move(ids), .source = std::move(source)};
  result.type = type_of(result.ids);
  if (result.type == GeneIdType::kEnsembl) {
    for (std::string& id : result.ids) {
      if (std::string ensembl = ensembl_id_in(id); !ensembl.empty()) id = std::move(ensembl);
    }
  } else {
    result.removed_prefixes = remove_genome_prefixes(result.ids);
  }
  return result;
}

}  // namespace

std::string_view name_of(GeneIdType type) {
  switch (type) {
    case GeneIdType::kEnsembl:
      return "ensembl";
    case GeneIdType::kSymbol:
      return "symbol";
    case GeneIdType::kOther:
      break;
  }
  return "other";
}

bool is_ensembl_id(std::string_view id) {
  const std::string_view base = stem(id);
  if (base.starts_with("ENS")) {  // ENS, a species code of capitals, G, eleven digits
    const std::size_t digits = base.size() >= 11 ? base.size() - 11 : 0;
    return digits >= 4 && base[digits - 1] == 'G' && all_digits(base.substr(digits)) &&
           std::all_of(base.begin(), base.begin() + static_cast<std::ptrdiff_t>(digits),
                       [](unsigned char c) { return std::isupper(c) != 0; });
  }
  if (base.starts_with("WBGene")) return all_digits(base.substr(6));
  if (base.starts_with("FBgn")) return all_digits(base.substr(4));
  return false;
}

std::string without_version(std::string_view id) { return std::string(is_ensembl_id(id) ? stem(id) : id); }

std::string ensembl_id_in(std::string_view text) {
  std::string_view found;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find_first_of("_|:;,/ ", begin), text.size());
    if (const std::string_view part = text.substr(begin, end - begin); is_ensembl_id(part)) {
      if (!found.empty() && stem(part) != stem(found)) return {};
      found = part;
    }
    begin = end + 1;
  }
  return std::string(stem(found));
}

std::vector<std::string> remove_genome_prefixes(std::vector<std::string>& symbols) {
  constexpr std::size_t kMaxGenomes = 4;
  std::map<std::string, std::size_t> count_of;
  std::size_t num_prefixed = 0;
  for (const std::string& symbol : symbols) {
    const std::size_t size = genome_prefix_bytes(symbol);
    if (size == 0) continue;
    ++num_prefixed;
    ++count_of[symbol.substr(0, size)];
    if (count_of.size() > kMaxGenomes) return {};
  }
  if (num_prefixed == 0 || 10 * num_prefixed < 9 * symbols.size()) return {};
  for (std::string& symbol : symbols) symbol.erase(0, genome_prefix_bytes(symbol));
  std::vector<std::string> removed;
  for (const auto& [prefix, count] : count_of) removed.push_back(prefix);
  return removed;
}

GeneIdType type_of(const std::vector<std::string>& ids) {
  std::size_t num_ensembl = 0, num_symbols = 0;
  for (const std::string& id : ids) {
    if (!ensembl_id_in(id).empty()) {
      ++num_ensembl;
    } else if (looks_like_symbol(id)) {
      ++num_symbols;
    }
  }
  if (2 * num_ensembl >= ids.size() && num_ensembl > 0) return GeneIdType::kEnsembl;
  if (2 * num_symbols >= ids.size() && num_symbols > 0) return GeneIdType::kSymbol;
  return GeneIdType::kOther;
}

GeneIds choose_gene_ids(const AnnDataFile& file, std::string_view matrix_name, std::string_view gene_column) {
  if (!gene_column.empty() && gene_column != "index") {
    return make(file.var_column(matrix_name, gene_column), fmt::format("var['{}']", gene_column), file);
  }
  GeneIds from_index = make(file.var_index(matrix_name), "var index", file);
  if (gene_column == "index" || from_index.type == GeneIdType::kEnsembl) return from_index;
  for (const std::string& column : file.var_columns(matrix_name)) {
    std::vector<std::string> texts;
    try {
      texts = file.var_column(matrix_name, column);
    } catch (const DataError&) {
      continue;  // a column of a kind that cannot hold ids is no candidate
    }
    if (type_of(texts) == GeneIdType::kEnsembl)
      return make(std::move(texts), fmt::format("var['{}']", column), file);
  }
  return from_index;
}

}  // namespace scrna::data
