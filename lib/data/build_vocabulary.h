// Builds a vocabulary from the files it will be trained on: one pass, cells in blocks, genes matched across
// files by id. Columns of one file with the same id are one gene whose counts are summed. A value that is not
// above zero is "not expressed". Only cells that data.filter chooses
// take part, held-out ones among them: medians are scales, not targets, and a vocabulary
// serves many splits.
#pragma once

#include <span>

#include "lib/data/cell_source.h"
#include "lib/data/vocabulary.h"

namespace scrna::data {

/// Genes expressed by at least `min_cells` cells, sorted by id. Throws DataError when files use different
/// kinds of gene id, or no gene is left.
Vocabulary build_vocabulary(std::span<const CellSource> sources, int64_t min_cells,
                            const Progress& progress = {});

}  // namespace scrna::data
