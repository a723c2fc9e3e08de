// From a trained model and a file of cells to embeddings in that file's copy: what `scrna-train embed` does
// with each of its inputs. All cells of the input, in its order; a cell that expresses fewer than
// data.min_genes genes of the vocabulary (the model met none like it) gets a row of NaN and is counted. Rows
// are kept beside the output while it grows, so that an interrupted command goes on where it was.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lib/config/bound.h"
#include "lib/data/corpus.h"
#include "lib/data/embedding_file.h"
#include "lib/eval/embedding.h"
#include "lib/train/cell_rows.h"
#include "lib/train/trained_model.h"

namespace scrna::train {

struct EmbedSettings {
  eval::Pooling pooling = eval::Pooling::kMean;
  int64_t layer = -1;
  int64_t tokens_per_pack = 0;

  template <class V>
  void visit(V&& v) {
    v("pooling", pooling,
      "of the cell's tokens into one vector: mean or max over those of its genes, or the first token (<cls> "
      "where "
      "tokenizer.add_cls is set)");
    v("layer", layer,
      "whose tokens: -1 the last, after the final LayerNorm; -2 the one before, N after block N, 0 the "
      "embeddings, "
      "as they are",
      config::between(-257, 256));
    v("tokens_per_pack", tokens_per_pack,
      "tokens of one forward pass, at most; 0: 65,536 on a GPU, 8,192 on the CPU",
      config::between(0, 16777216));
  }
};

/// A trained model that is ready to embed.
struct Embedder {
  std::shared_ptr<const TrainedModel> model;
  TrainConfig config;  // config_for_use()
  std::unique_ptr<model::Encoder> encoder;
  eval::EmbeddingOptions options;
  EmbedSettings settings;
};

/// Chooses device and type as config.train says and logs them. Throws ConfigError for a layer that the model
/// does not have, DeviceError without the GPU asked for.
Embedder make_embedder(std::shared_ptr<const TrainedModel> model, const TrainConfig& config,
                       const EmbedSettings& settings);

/// The cells of one file as this model's tokens, after the look at data.scan_cells of them. Throws DataError
/// when its counts cannot be found or few of them are in genes of the vocabulary.
data::Corpus open_cells(const Embedder& embedder, const std::filesystem::path& file,
                        const data::Progress& progress);

/// SHA-256 of everything the embeddings of that file depend on: model, settings, the file's name, size and
/// time.
std::string settings_of(const Embedder& embedder, const std::filesystem::path& file);

struct EmbedReport : CellRowsReport {
  int64_t left_out = 0;  // cells with NaN
};

/// Embeds all cells of target.input and writes target.output. `program`: its version, for the record. Throws
/// as open_cells(), and DataError when something cannot be written (the finished rows are then kept);
/// NumericError when an embedding is not finite.
EmbedReport embed_file(const Embedder& embedder, const data::EmbeddingTarget& target,
                       const std::string& program, const data::Progress& open_progress,
                       const EmbedProgress& keep_going);

}  // namespace scrna::train
