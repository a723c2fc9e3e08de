#include "lib/train/cell_rows.h"

#include <system_error>

#include <c10/util/Exception.h>

#include "lib/core/clock.h"
#include "lib/core/error.h"
#include "lib/core/log.h"
#include "lib/core/progress.h"
#include "lib/train/embed_file.h"

namespace scrna::train {
namespace {

namespace fs = std::filesystem;

// Cells that are read together, and whose rows are written together: seconds of work, tens of megabytes.
constexpr int64_t kWindowCellsGpu = 4096, kWindowCellsCpu = 512;

fs::path partial_path(const fs::path& output) {
  fs::path path = output;
  path += ".partial";
  return path;
}

// The rows twice, beside the output and in it, and the copy.
void require_space(const CellRowsRequest& request, int64_t cells) {
  std::error_code problem;
  const fs::path folder = request.output.has_parent_path() ? request.output.parent_path() : fs::path(".");
  const fs::space_info space = fs::space(folder, problem);
  if (problem) return;
  const auto row_bytes = static_cast<uint64_t>(cells * request.width) * sizeof(float);
  const uint64_t needed = 2 * row_bytes + (request.is_copy ? fs::file_size(request.input, problem) : 0);
  if (problem || space.available >= needed) return;
  throw DataError("{}: {:.1f} GB are needed in its folder, {:.1f} GB are free{}", request.output.string(),
                  static_cast<double>(needed) / 1e9, static_cast<double>(space.available) / 1e9,
                  request.space_advice);
}

int64_t cells_with_room(const data::Corpus& corpus, const CellRowsRequest& request) {
  const int64_t cells = corpus.reports().front().cells;
  require_space(request, cells);
  return cells;
}

}  // namespace

CellRows::CellRows(const Embedder& embedder, const data::Corpus& corpus, const CellRowsRequest& request)
    : embedder_(embedder),
      corpus_(corpus),
      cells_(cells_with_room(corpus, request)),
      window_cells_(embedder.encoder->device().is_cuda() ? kWindowCellsGpu : kWindowCellsCpu),
      rows_(partial_path(request.output), request.settings, cells_, request.width, window_cells_) {
  if (rows_.num_done() > 0) {
    log::info("[{}] {}: {} of {} cells were done before; going on from there", request.command,
              request.input.string(), grouped(rows_.num_done()), grouped(cells_));
  } else if (rows_.was_replaced()) {
    log::warning("[{}] {}: rows of another model, file or settings; begun anew", request.command,
                 partial_path(request.output).string());
  }
}

CellRowsReport CellRows::compute(const RowsOfEmbeddings& rows_of, const EmbedProgress& keep_going) {
  CellRowsReport report{.cells = cells_, .resumed_cells = rows_.num_done()};
  const double start = now_seconds();
  try {
    report.is_finished = eval::embed_source(
        *embedder_.encoder, corpus_, 0, report.resumed_cells, window_cells_, embedder_.options,
        [&](int64_t /*first*/, const at::Tensor& embeddings) {
          const at::Tensor rows = rows_of(embeddings);
          rows_.append(rows.const_data_ptr<float>(), rows.size(0));
        },
        [&](int64_t done) { return !keep_going || keep_going(report.resumed_cells + done, cells_); });
  } catch (const c10::OutOfMemoryError&) {  // LibTorch's message names bytes, this one the flag
    throw DeviceError(
        "the GPU's memory is full; lower --tokens-per-pack (now {}), or see whether other programs "
        "use this GPU (nvidia-smi)",
        embedder_.options.tokens_per_pack);
  }
  report.seconds = now_seconds() - start;
  return report;
}

}  // namespace scrna::train
