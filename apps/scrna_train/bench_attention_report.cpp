#include "apps/scrna_train/bench_attention_report.h"

#include <algorithm>
#include <map>

#include "apps/scrna_train/bench_report.h"
#include "apps/scrna_train/commands.h"

namespace scrna::app {
namespace {

constexpr std::size_t kNameColumn = 26;

/// Width of a column, with a gap before it: "12345 / 12345" fits.
std::size_t width_of(const bench::AttentionForm& form) {
  return std::max<std::size_t>(13, form.title.size()) + 2;
}

double tflops(double flop, double milliseconds) { return flop / milliseconds * 1e-9; }

/// TFLOP/s on a GPU, milliseconds on the CPU; "-" for what was not measured.
std::string cell(const bench::AttentionBench& attention, double flop,
                 const std::optional<double>& milliseconds) {
  if (!milliseconds) return "-";
  return attention.on_gpu() ? fmt::format("{:.0f}", tflops(flop, *milliseconds))
                            : fmt::format("{:.{}f}", *milliseconds,
                                          *milliseconds < 10    ? 2
                                          : *milliseconds < 100 ? 1
                                                                : 0);
}

nlohmann::ordered_json number(const std::optional<double>& value) {
  return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json(nullptr);
}

}  // namespace

std::string attention_table_head(const bench::AttentionBench& attention, const bench::Machine& machine) {
  const std::string type = name_of(attention.options().dtype);
  std::string text;
  if (attention.on_gpu()) {
    text = fmt::format(
        "{}, {}\n"
        "TFLOP/s forward / backward, valid tokens only; medians, L2 flushed before each launch\n\n",
        machine_words(machine, true), type);
  } else {
    text = fmt::format(
        "{}, {}\n"
        "milliseconds forward / forward and backward; medians, the forms taking turns\n\n",
        machine_words(machine, false), type);
  }
  std::string kinds = fmt::format("{:{}}", "", kNameColumn), titles = kinds, last_kind;
  for (const bench::AttentionForm& form : attention.forms()) {
    kinds += fmt::format("{:>{}}", form.kind == last_kind ? "" : form.kind, width_of(form));
    titles += fmt::format("{:>{}}", form.title, width_of(form));
    last_kind = form.kind;
  }
  kinds.erase(kinds.find_last_not_of(' ') + 1);
  return text + kinds + "\n" + titles + "\n";
}

std::string attention_table_line(const bench::AttentionBench& attention,
                                 const bench::AttentionRowResult& result) {
  const double flop = result.row.forward_flop();
  std::string line = fmt::format("{:{}}", result.row.name, kNameColumn);
  const int digits = attention.on_gpu() ? 3 : 5;
  for (std::size_t i = 0; i < result.forms.size(); ++i) {
    const bench::AttentionMeasurement& x = result.forms[i];
    const std::string text =
        x.problem.empty()
            ? fmt::format("{} / {:>{}}", cell(attention, flop, x.forward_milliseconds),
                          cell(attention, attention.backward_flop_factor() * flop, x.backward_milliseconds),
                          digits)
            : "-";
    line += fmt::format("{:>{}}", text, width_of(attention.forms()[i]));
  }
  return line + "\n";
}

std::string attention_table_foot(const bench::AttentionBench& attention,
                                 const std::vector<bench::AttentionRowResult>& results) {
  std::string text = "\n";
  for (const bench::AttentionForm& form : attention.forms())
    text += fmt::format("  {:18}{}\n", form.title, form.what);
  if (attention.on_gpu())
    text +=
        "  d64 T=512         head width 64 (of 2,048 columns), cells of 512 tokens\n"
        "  pad 25%           lengths uniform in the last 25% below T: ours computes the padded layout, the "
        "others the\n"
        "                    packed one\n"
        "  ragged, 12x64     lengths as in CELLxGENE (log2-normal(10.75, 1.25), 200 to 8,192), 12 heads of "
        "width 64\n";
  // The same problem in many rows is told once.
  std::map<std::pair<std::string, std::string>, std::vector<std::string>> problems;
  for (const bench::AttentionRowResult& result : results)
    for (std::size_t i = 0; i < result.forms.size(); ++i)
      if (!result.forms[i].problem.empty())
        problems[{attention.forms()[i].title, result.forms[i].problem}].push_back(result.row.name);
  for (const auto& [what, rows] : problems)
    text +=
        fmt::format("  not measured: {} for {}{}: {}\n", what.first, rows.front(),
                    rows.size() > 1 ? fmt::format(" and {} more rows", rows.size() - 1) : "", what.second);
  return text;
}

nlohmann::ordered_json attention_json(const bench::AttentionBench& attention, const bench::Machine& machine,
                                      const std::vector<bench::AttentionRowResult>& results) {
  nlohmann::ordered_json json{{"benchmark", "attention"}};
  json.update(machine_json(machine, attention.on_gpu()));
  const bench::AttentionBenchOptions& options = attention.options();
  json["settings"] = {{"dtype", name_of(options.dtype)},
                      {"bias", name_of(options.bias)},
                      {"tokens", options.tokens},
                      {"measure_ms", options.measure_ms},
                      {"backward_includes_forward", !attention.on_gpu()}};
  json["forms"] = nlohmann::ordered_json::array();
  for (const bench::AttentionForm& form : attention.forms())
    json["forms"].push_back(
        {{"key", form.key}, {"title", form.title}, {"kind", form.kind}, {"what", form.what}});
  json["rows"] = nlohmann::ordered_json::array();
  for (const bench::AttentionRowResult& result : results) {
    const double flop = result.row.forward_flop();
    const double backward_flop = attention.backward_flop_factor() * flop;
    nlohmann::ordered_json row{{"name", result.row.name},
                               {"heads", result.row.num_heads},
                               {"head_width", result.row.head_width},
                               {"lengths", result.row.lengths},
                               {"padded_length", result.row.padded_length},
                               {"valid_tokens", result.row.valid_tokens()},
                               {"forward_flop", flop},
                               {"backward_flop", backward_flop},
                               {"forms", nlohmann::ordered_json::object()}};
    for (std::size_t i = 0; i < result.forms.size(); ++i) {
      const bench::AttentionMeasurement& x = result.forms[i];
      const auto rate = [](double count, const std::optional<double>& milliseconds) {
        return milliseconds ? std::optional(tflops(count, *milliseconds)) : std::nullopt;
      };
      nlohmann::ordered_json measured{
          {"forward_ms", number(x.forward_milliseconds)},
          {"forward_tflops", number(rate(flop, x.forward_milliseconds))},
          {"backward_ms", number(x.backward_milliseconds)},
          {"backward_tflops", number(rate(backward_flop, x.backward_milliseconds))}};
      if (!x.problem.empty()) measured["problem"] = x.problem;
      row["forms"][attention.forms()[i].key] = measured;
    }
    json["rows"].push_back(row);
  }
  return json;
}

}  // namespace scrna::app
