// Which text identifies a gene: Ensembl ids without their version, or symbols. Found by looking at the
// contents, since files put Ensembl ids in the index, in var["gene_ids"], var["ensembl_id"],
// var["feature_id"] ... as they please.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/data/anndata.h"

namespace scrna::data {

enum class GeneIdType { kEnsembl, kSymbol, kOther };
/// "ensembl", "symbol" or "other".
std::string_view name_of(GeneIdType type);

struct GeneIds {
  std::vector<std::string> ids;  // one per gene of the matrix; Ensembl ids without version; "" = unknown
  GeneIdType type = GeneIdType::kOther;
  std::string source;  // "var index" or "var['gene_ids']"
};

/// True for Ensembl gene ids of any species (ENSG00000141510, ENSMUSG00000059552.3) and WormBase/FlyBase gene
/// ids.
bool is_ensembl_id(std::string_view id);
/// "ENSG00000141510.17" -> "ENSG00000141510"; other texts unchanged.
std::string without_version(std::string_view id);
/// The type that most of the ids have.
GeneIdType type_of(const std::vector<std::string>& ids);

/// gene_column "": Ensembl ids from the index or any var column if at least half of the genes have one, else
/// the index. "index": the index. Otherwise that var column. Throws DataError for a column that does not
/// exist, and for ids that are no text.
GeneIds choose_gene_ids(const AnnDataFile& file, std::string_view matrix_name, std::string_view gene_column);

}  // namespace scrna::data
