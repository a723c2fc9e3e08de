#include "apps/scrna_train/bench_train_report.h"

#include <algorithm>

#include "apps/scrna_train/bench_report.h"
#include "lib/core/progress.h"
#include "lib/train/matrix_ceiling.h"

namespace scrna::app {
namespace {

constexpr std::size_t kLongestOthers = 5;  // kernels without a class that are named
constexpr double kNamedMilliseconds = 0.05;

std::string short_name(const std::string& kernel) {
  constexpr std::size_t kColumns = 90;
  return kernel.size() <= kColumns ? kernel : kernel.substr(0, kColumns - 3) + "...";
}

std::string problem_words(const TrainBenchReport& report) {
  const bench::TrainBenchResult& result = report.result;
  const train::TrainConfig& config = report.config;
  return fmt::format(
      "{} parameters ({} layers x {}, {} heads, {} tokens in the vocabulary), {} products, dropout {}\n"
      "{}\n"
      "{} cells ({} lengths, longest {}), {} tokens, {} masked, in {} forward pass(es); no data path\n",
      grouped(result.parameters), config.model.num_layers, config.model.width, config.model.num_heads,
      grouped(report.options.vocabulary), result.compute_type, config.model.dropout, result.attention,
      grouped(result.load.cells), name_of(report.options.lengths), grouped(result.longest_cell_tokens),
      grouped(result.load.tokens), grouped(result.load.masked_tokens), result.micro_batches);
}

std::string line(std::string_view what, const std::string& value) {
  return fmt::format("  {:<20}{}\n", what, value);
}

std::string memory_words(const TrainBenchReport& report) {
  const auto gigabytes = [](int64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  if (!report.result.memory) {
    return fmt::format("{:.2f} GB, the whole process", gigabytes(report.result.peak_resident_bytes));
  }
  return fmt::format(
      "{:.2f} GB of tensors (predicted {:.2f}), {:.2f} GB taken from the driver, of {:.1f} GB",
      gigabytes(report.result.memory->peak_bytes), gigabytes(report.result.predicted_memory_bytes),
      gigabytes(report.result.memory->peak_reserved_bytes), gigabytes(report.result.memory->total_bytes));
}

std::string breakdown_words(const bench::TrainBenchResult& result) {
  if (!result.breakdown) return fmt::format("\n  no breakdown by kernel: {}\n", result.breakdown_problem);
  const bench::Breakdown& breakdown = *result.breakdown;
  const double step = breakdown.step_milliseconds;
  std::string text = fmt::format("\n  {:<20}{:>9}{:>8}\n", "kernels of a step", "ms", "%");
  const auto row = [&](std::string_view what, double milliseconds) {
    text += fmt::format("  {:<20}{:>9.2f}{:>8.1f}\n", what, milliseconds, 100 * milliseconds / step);
  };
  for (const auto& [kernel_class, name] : bench::kKernelClasses)
    row(name, breakdown.milliseconds.at(kernel_class));
  row("idle", breakdown.idle_milliseconds());
  text += fmt::format(
      "  (parts of {} recorded steps of {:.2f} ms, from the first kernel to the last; idle: nothing runs;\n"
      "   products: of the blocks and of the head, forward, backward and of the weights)\n",
      bench::kProfiledSteps, step);
  std::size_t told = 0;
  for (const bench::KernelTime& kernel : breakdown.kernels) {
    if (kernel.kernel_class != bench::KernelClass::kOther ||
        kernel.milliseconds_per_step < kNamedMilliseconds)
      continue;
    if (told++ == kLongestOthers) break;
    text += fmt::format("  other: {:.2f} ms {}\n", kernel.milliseconds_per_step, short_name(kernel.name));
  }
  return text;
}

nlohmann::ordered_json breakdown_json(const bench::TrainBenchResult& result) {
  if (!result.breakdown) return nullptr;
  const bench::Breakdown& breakdown = *result.breakdown;
  nlohmann::ordered_json json{
      {"classes_ms", nlohmann::ordered_json::object()}, {"busy_ms", breakdown.busy_milliseconds},
      {"recorded_steps", bench::kProfiledSteps},        {"recorded_step_ms", breakdown.step_milliseconds},
      {"idle_ms", breakdown.idle_milliseconds()},       {"kernels", nlohmann::ordered_json::array()}};
  for (const auto& [kernel_class, name] : bench::kKernelClasses) {
    json["classes_ms"][std::string(name)] = breakdown.milliseconds.at(kernel_class);
  }
  for (const bench::KernelTime& kernel : breakdown.kernels) {
    json["kernels"].push_back({{"name", kernel.name},
                               {"class", bench::class_name(kernel.kernel_class)},
                               {"calls", kernel.calls_per_step},
                               {"ms", kernel.milliseconds_per_step}});
  }
  return json;
}

}  // namespace

std::string train_bench_text(const TrainBenchReport& report) {
  const bench::TrainBenchResult& result = report.result;
  const auto [fastest, slowest] =
      std::minmax_element(result.step_milliseconds.begin(), result.step_milliseconds.end());
  std::string text = machine_words(report.machine, report.on_gpu()) + "\n" + problem_words(report) + "\n";
  text += line("step", fmt::format("{:.2f} ms (median of {}; {:.2f} to {:.2f})", result.median_milliseconds,
                                   result.step_milliseconds.size(), *fastest, *slowest));
  text += line("cells", fmt::format("{:.1f} per second", result.per_second(result.load.cells)));
  text += line("tokens", fmt::format("{} per second",
                                     grouped(static_cast<int64_t>(result.per_second(result.load.tokens)))));
  text += line("model FLOP", fmt::format("{:.4g} TFLOP/s ({:.4g} TFLOP a step, forward and backward)",
                                         result.flop_per_second() * 1e-12, result.flop * 1e-12));
  text +=
      line("MFU",
           fmt::format("{:.1f} % of {:.4g} TFLOP/s, which large {} products reach here\n  {:<20}({:.1f} s of "
                       "them before the steps, the median of the second half{})",
                       100 * result.mfu(), result.ceiling_flop_per_second * 1e-12, result.compute_type, "",
                       train::kMatrixCeilingSeconds, report.on_gpu() ? "; train measures the same" : ""));
  text += line("peak memory", memory_words(report));
  text += line("padding", fmt::format("{:.1f} % of the rows computed", 100 * result.load.padding_share()));
  text += line("loss", fmt::format("{:.3f} to {:.3f}, the same cells every step", result.first_loss,
                                   result.last_loss));
  return text + breakdown_words(result);
}

std::string train_bench_row(const TrainBenchReport& report) {
  const bench::TrainBenchResult& result = report.result;
  const train::TrainConfig& config = report.config;
  const std::string attention = config.model.attention == model::Attention::kSigmoid
                                    ? fmt::format("sigmoid, {}", name_of(config.model.attention_precision))
                                    : "softmax";
  const bool rounds_residual = config.model.residual_precision == model::ResidualPrecision::kBf16;
  const int64_t bytes = result.memory ? result.memory->peak_bytes : result.peak_resident_bytes;
  return fmt::format(
      "| {:.4g}M | {} cells, {}, {} | {} | {}{} | {} | {:.1f} | {:.4g} | {} | {:.3g} | {:.1f} % | {:.1f} GB "
      "|\n",
      static_cast<double>(result.parameters) * 1e-6, result.load.cells, name_of(report.options.lengths),
      grouped(report.options.context), grouped(result.load.tokens), attention,
      rounds_residual ? ", bf16 residual" : "", name_of(config.train.recompute), result.median_milliseconds,
      result.per_second(result.load.cells),
      grouped(static_cast<int64_t>(result.per_second(result.load.tokens))), result.flop_per_second() * 1e-12,
      100 * result.mfu(), static_cast<double>(bytes) / 1e9);
}

nlohmann::ordered_json train_bench_json(const TrainBenchReport& report) {
  const bench::TrainBenchResult& result = report.result;
  const train::TrainConfig& config = report.config;
  nlohmann::ordered_json json{{"benchmark", "train"}};
  json.update(machine_json(report.machine, report.on_gpu()));
  json["settings"] = {{"lengths", name_of(report.options.lengths)},
                      {"context", report.options.context},
                      {"vocabulary", report.options.vocabulary},
                      {"attention", name_of(config.model.attention)},
                      {"attention_precision", name_of(config.model.attention_precision)},
                      {"residual_precision", name_of(config.model.residual_precision)},
                      {"num_layers", config.model.num_layers},
                      {"width", config.model.width},
                      {"num_heads", config.model.num_heads},
                      {"feed_forward_width", config.model.feed_forward_width},
                      {"dropout", config.model.dropout},
                      {"tokens_per_micro_batch", config.data.tokens_per_micro_batch},
                      {"recompute", name_of(config.train.recompute)},
                      {"probe_queries", config.train.probe_queries},
                      {"compute_type", result.compute_type}};
  json["attention_implementation"] = result.attention;
  json["parameters"] = result.parameters;
  json["cells"] = result.load.cells;
  json["tokens"] = result.load.tokens;
  json["masked_tokens"] = result.load.masked_tokens;
  json["squared_lengths"] = result.load.squared_lengths;
  json["longest_cell_tokens"] = result.longest_cell_tokens;
  json["micro_batches"] = result.micro_batches;
  json["flop_per_step"] = result.flop;
  json["step_ms"] = result.median_milliseconds;
  json["steps_ms"] = result.step_milliseconds;
  json["cells_per_second"] = result.per_second(result.load.cells);
  json["tokens_per_second"] = result.per_second(result.load.tokens);
  json["model_tflops_per_second"] = result.flop_per_second() * 1e-12;
  json["matrix_ceiling_tflops_per_second"] = result.ceiling_flop_per_second * 1e-12;
  json["mfu"] = result.mfu();
  json["padding_share"] = result.load.padding_share();
  json["peak_device_memory_bytes"] = nullptr;
  json["peak_reserved_memory_bytes"] = nullptr;
  if (result.memory) {
    json["peak_device_memory_bytes"] = result.memory->peak_bytes;
    json["peak_reserved_memory_bytes"] = result.memory->peak_reserved_bytes;
  }
  json["predicted_device_memory_bytes"] = nullptr;
  if (result.memory) json["predicted_device_memory_bytes"] = result.predicted_memory_bytes;
  json["peak_resident_bytes"] = result.peak_resident_bytes;
  json["first_loss"] = result.first_loss;
  json["last_loss"] = result.last_loss;
  json["breakdown"] = breakdown_json(result);
  if (!result.breakdown) json["breakdown_problem"] = result.breakdown_problem;
  return json;
}

}  // namespace scrna::app
