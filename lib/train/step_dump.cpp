#include "lib/train/step_dump.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "lib/core/error.h"
#include "lib/core/files.h"
#include "lib/model/encoder.h"

namespace scrna::train {
namespace {

using Json = nlohmann::ordered_json;
using Limits = std::numeric_limits<double>;

Json exact(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

double exact(const Json& json) {
  if (json.is_number()) return json.get<double>();
  const auto text = json.get<std::string>();
  if (text == "nan") return Limits::quiet_NaN();
  if (text == "inf") return Limits::infinity();
  if (text == "-inf") return -Limits::infinity();
  throw Json::other_error::create(501, "not a number: " + text, nullptr);
}

Json by_name(const std::vector<std::string>& names, const std::vector<double>& values) {
  Json object = Json::object();
  for (std::size_t i = 0; i < values.size(); ++i) object[names.at(i)] = exact(values[i]);
  return object;
}

Json to_json(const DumpedCell& cell) {
  return {{"rank", cell.rank}, {"micro_batch", cell.micro_batch}, {"id", fmt::format("{:016x}", cell.id)}, {"tokens", cell.tokens}};
}

DumpedCell cell_from(const Json& json) {
  DumpedCell cell{.rank = json.at("rank"), .micro_batch = json.at("micro_batch"), .id = 0, .tokens = json.at("tokens")};
  const auto id = json.at("id").get<std::string>();
  const auto [end, problem] = std::from_chars(id.data(), id.data() + id.size(), cell.id, 16);
  if (problem != std::errc() || end != id.data() + id.size()) {
    throw Json::other_error::create(501, "not a cell's id: " + id, nullptr);
  }
  return cell;
}

StepDump parse(const Json& json) {
  StepDump dump{.step = json.at("step"),
                .data_step = json.at("data_step"),
                .epoch = json.at("epoch"),
                .seed = json.at("seed"),
                .data_offset = json.at("data_offset"),
                .offset_since_step = json.at("offset_since_step"),
                .reason = json.at("reason"),
                .policy = json.at("policy"),
                .loss = exact(json.at("loss")),
                .grad_norm = exact(json.at("grad_norm")),
                .learning_rate = json.at("learning_rate"),
                .grad_norm_limit = exact(json.at("grad_norm_limit")),
                .is_applied = json.at("applied"),
                .layer_names = {},
                .grad_norm_per_layer = {},
                .max_score_per_layer = {},
                .tokens = json.at("tokens"),
                .masked_tokens = json.at("masked_tokens"),
                .num_ranks = json.at("num_ranks"),
                .device = json.at("device"),
                .compute_type = json.at("compute_type"),
                .cells = {}};
  for (const auto& [name, value] : json.at("grad_norm_per_layer").items()) {
    dump.layer_names.push_back(name);
    dump.grad_norm_per_layer.push_back(exact(value));
  }
  for (const Json& value : json.at("max_score_per_layer")) dump.max_score_per_layer.push_back(exact(value));
  for (const Json& cell : json.at("cells")) dump.cells.push_back(cell_from(cell));
  return dump;
}

}  // namespace

std::vector<DumpedCell> cells_of(const std::vector<model::TokenTensors>& micro_batches, int64_t rank) {
  std::vector<DumpedCell> cells;
  for (std::size_t index = 0; index < micro_batches.size(); ++index) {
    const at::Tensor ids = micro_batches[index].cell_ids.cpu();
    const auto* id = ids.const_data_ptr<int64_t>();
    const auto* begin = micro_batches[index].cu_seqlens_host.const_data_ptr<int32_t>();
    for (int64_t cell = 0; cell < ids.numel(); ++cell) {
      cells.push_back({.rank = rank,
                       .micro_batch = static_cast<int64_t>(index),
                       .id = static_cast<uint64_t>(id[cell]),
                       .tokens = begin[cell + 1] - begin[cell]});
    }
  }
  return cells;
}

std::string cells_text(const std::vector<DumpedCell>& cells) {
  Json list = Json::array();
  for (const DumpedCell& cell : cells) list.push_back(to_json(cell));
  return list.dump();
}

void append_cells(const std::string& text, std::vector<DumpedCell>& cells) {
  for (const Json& cell : Json::parse(text)) cells.push_back(cell_from(cell));
}

std::string dump_name(int64_t step) { return fmt::format("step-{:08}.json", step); }

void write_dump(const std::filesystem::path& file, const StepDump& dump) {
  std::vector<std::string> blocks;
  for (std::size_t i = 0; i < dump.max_score_per_layer.size(); ++i) blocks.push_back(model::layer_name(static_cast<int64_t>(i)));
  Json cells = Json::array();
  for (const DumpedCell& cell : dump.cells) cells.push_back(to_json(cell));
  const Json json{{"format_version", 1},
                  {"step", dump.step},
                  {"reason", dump.reason},
                  {"policy", dump.policy},
                  {"applied", dump.is_applied},
                  {"loss", exact(dump.loss)},
                  {"grad_norm", exact(dump.grad_norm)},
                  {"grad_norm_limit", exact(dump.grad_norm_limit)},
                  {"learning_rate", dump.learning_rate},
                  {"seed", dump.seed},
                  {"data_step", dump.data_step},
                  {"epoch", dump.epoch},
                  {"data_offset", dump.data_offset},
                  {"offset_since_step", dump.offset_since_step},
                  {"tokens", dump.tokens},
                  {"masked_tokens", dump.masked_tokens},
                  {"num_ranks", dump.num_ranks},
                  {"device", dump.device},
                  {"compute_type", dump.compute_type},
                  {"grad_norm_per_layer", by_name(dump.layer_names, dump.grad_norm_per_layer)},
                  {"max_score_per_layer", by_name(blocks, dump.max_score_per_layer)},
                  {"cells", cells}};
  write_file_atomically(file, json.dump(1) + "\n");
}

StepDump read_dump(const std::filesystem::path& file) {
  const Json json = Json::parse(read_file(file), nullptr, /*allow_exceptions=*/false);
  try {
    if (json.at("format_version") != 1) throw DataError("{}: format version {}, but this program reads 1", file.string(), json.at("format_version").dump());
    return parse(json);
  } catch (const Json::exception& problem) {
    throw DataError("{}: not the dump of a step ({}); expected a divergence/step-NNNNNNNN.json of a run", file.string(), problem.what());
  }
}

}  // namespace scrna::train
