// Which text identifies a gene: Ensembl ids without their version, or symbols. Found by looking at the
// contents, since files put Ensembl ids in the index, in var["gene_ids"], var["ensembl_id"],
// var["feature_id"] ... as they please. Files of several species put the genome before each name
// (GRCh38_ENSG00000141510, mm10___Trp53), others join symbol and id (TP53_ENSG00000141510): what remains is
// the id.
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
  std::string source;                         // "var index" or "var['gene_ids']"
  std::vector<std::string> removed_prefixes;  // "mm10_": genomes that stood before all symbols
};

/// True for Ensembl gene ids of any species (ENSG00000141510, ENSMUSG00000059552.3) and WormBase/FlyBase gene
/// ids.
bool is_ensembl_id(std::string_view id);
/// "ENSG00000141510.17" -> "ENSG00000141510"; other texts unchanged.
std::string without_version(std::string_view id);
/// The Ensembl id in a text, without version: the only one among the parts that one of the characters "_|:;,/
/// " separates. "" when there is none, or there are several. "ENSG00000228572.7_PAR_Y" -> "ENSG00000228572".
std::string ensembl_id_in(std::string_view text);
/// Takes off the genomes before symbols, in place, and returns them: when 9 of 10 texts begin with one of at
/// most four names that have a digit in them (hg19, GRCh38; or are "human", "mouse") and underscores,
/// followed by a letter.
std::vector<std::string> remove_genome_prefixes(std::vector<std::string>& symbols);
/// The type that most of the ids have; Ensembl ids inside other texts count.
GeneIdType type_of(const std::vector<std::string>& ids);

/// gene_column "": Ensembl ids from the index or any var column if at least half of the genes have one, else
/// the index. "index": the index. Otherwise that var column. Throws DataError for a column that does not
/// exist, and for ids that are no text.
GeneIds choose_gene_ids(const AnnDataFile& file, std::string_view matrix_name, std::string_view gene_column);

}  // namespace scrna::data
