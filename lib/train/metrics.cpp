#include "lib/train/metrics.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "lib/core/files.h"
#include "lib/model/encoder.h"

namespace scrna::train {
namespace {

using Json = nlohmann::ordered_json;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

template <class T>
Json number(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

void add_monitored(const MonitorReading& reading, const std::vector<std::string>& layer_names, Json& line) {
  const auto add = [&line](std::string_view key, const std::string& layer, double value) {
    line[std::string(key)][layer] = number(value);
  };
  for (std::size_t i = 0; i < layer_names.size(); ++i) {
    add("weight_norm_per_layer", layer_names[i], reading.weight_norm.at(i));
    add("update_ratio_per_layer", layer_names[i], reading.update_ratio.at(i));
  }
  for (const auto& [statistic, key] : kLayerStatisticKeys) {
    const auto values_of = [at = static_cast<std::size_t>(statistic)](const auto& block) { return block[at]; };
    const bool is_measured = statistic != model::LayerStatistic::kExactMaxScore ||
                             std::ranges::none_of(reading.blocks, [&](const auto& block) { return std::isnan(values_of(block)); });
    for (std::size_t i = 0; is_measured && i < reading.blocks.size(); ++i) {
      add(key, model::layer_name(static_cast<int64_t>(i)), values_of(reading.blocks[i]));
    }
  }
}

}  // namespace

std::string step_line(const StepReport& report, const std::vector<std::string>& layer_names,
                      const MeterReading& reading) {
  Json grad_norms = Json::object(), max_scores = Json::object();
  for (std::size_t i = 0; i < report.grad_norm_per_layer.size(); ++i) {
    grad_norms[layer_names[i]] = number(report.grad_norm_per_layer[i]);
  }
  for (std::size_t i = 0; i < report.max_score_per_layer.size(); ++i) {
    max_scores[model::layer_name(static_cast<int64_t>(i))] = number(report.max_score_per_layer[i]);
  }
  const PhaseSeconds& seconds = report.seconds;
  Json line{{"step", report.step},
              {"epoch", report.epoch},
              {"loss", number(report.loss)},
              {"learning_rate", report.learning_rate},
              {"grad_norm", number(report.grad_norm)},
              {"grad_norm_per_layer", grad_norms},
              {"max_score_per_layer", max_scores},
              {"tokens", report.tokens},
              {"masked_tokens", report.masked_tokens},
              {"cells", report.cells},
              {"micro_batches", report.micro_batches},
              {"applied", report.is_applied},
              {"skipped_steps", report.skipped_steps},
              {"seconds", seconds.total},
              {"seconds_data_wait", seconds.data_wait},
              {"seconds_idle", seconds.idle},
              {"seconds_forward", seconds.forward},
              {"seconds_backward", seconds.backward},
              {"seconds_reduce", seconds.reduce},
              {"seconds_optimizer", seconds.optimizer},
              {"cells_per_second", reading.cells_per_second},
              {"tokens_per_second", reading.tokens_per_second},
              {"model_tflops_per_second", reading.flop_per_second * 1e-12},
              {"mfu", number(reading.mfu)},
              {"data_wait_share", reading.data_wait_share},
              {"padding_share", reading.padding_share},
              {"peak_device_memory_bytes", number(reading.peak_device_memory_bytes)}};
  if (report.monitor) add_monitored(*report.monitor, layer_names, line);
  return line.dump();
}

std::string rollback_line(int64_t step, int64_t from_step, int64_t data_offset, std::string_view reason) {
  return Json{{"step", step}, {"rollback_from_step", from_step}, {"data_offset", data_offset}, {"reason", reason}}.dump();
}

std::string heldout_line(int64_t step, const eval::HeldoutLoss& heldout, double seconds) {
  return Json{{"step", step},
              {"heldout_loss", number(heldout.loss)},
              {"heldout_uniform_loss", heldout.uniform_loss},
              {"heldout_gene_frequency_loss", heldout.gene_frequency_loss},
              {"heldout_cells", heldout.cells},
              {"heldout_masked_tokens", heldout.masked_tokens},
              {"heldout_seconds", seconds}}
      .dump();
}

int64_t rewind_metrics(const std::filesystem::path& metrics, int64_t step) {
  if (!std::filesystem::exists(metrics)) return 0;
  const std::string text = read_file(metrics);
  std::string kept, moved;
  int64_t num_moved = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t newline = text.find('\n', begin);
    const std::string line = text.substr(begin, newline == std::string::npos ? newline : newline - begin);
    begin = newline == std::string::npos ? text.size() : newline + 1;
    if (line.empty()) continue;
    const Json parsed = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    const bool is_whole = newline != std::string::npos && parsed.is_object() && parsed.contains("step") &&
                          parsed["step"].is_number_integer();
    if (is_whole && parsed["step"].get<int64_t>() <= step) {
      kept += line + "\n";
    } else {
      moved += line + "\n";
      ++num_moved;
    }
  }
  if (num_moved == 0) return 0;
  const std::filesystem::path superseded = metrics.parent_path() / "metrics.superseded.jsonl";
  const std::string before = std::filesystem::exists(superseded) ? read_file(superseded) : std::string();
  write_file_atomically(superseded, before + moved);
  write_file_atomically(metrics, kept);
  return num_moved;
}

}  // namespace scrna::train
