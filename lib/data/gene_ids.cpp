#include "lib/data/gene_ids.h"

#include <algorithm>
#include <cctype>

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
    for (std::string& id : result.ids) id = without_version(id);
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

GeneIdType type_of(const std::vector<std::string>& ids) {
  std::size_t num_ensembl = 0, num_symbols = 0;
  for (const std::string& id : ids) {
    if (is_ensembl_id(id)) {
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
