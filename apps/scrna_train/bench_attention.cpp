// scrna-train bench attention: lib/bench/attention_bench.h as a table on standard output and, with --json, as
// a file.
#include <memory>

#include "apps/scrna_train/bench_attention_report.h"
#include "apps/scrna_train/bench_report.h"
#include "apps/scrna_train/command_line.h"
#include "apps/scrna_train/fields.h"
#include "apps/scrna_train/wait_policy.h"
#include "lib/core/files.h"
#include "lib/core/log.h"

namespace scrna::app {
namespace {

struct BenchAttentionCommand {
  std::string json;
};

ExitCode bench_attention(const BenchAttentionCommand& command, const bench::AttentionBenchOptions& options) {
  wait_without_spinning();  // as a training run waits
  if (!command.json.empty()) check_json_target(command.json, "attention.json");
  bench::AttentionBench attention(options);
  const bench::Machine machine = attention.on_gpu() ? bench::gpu_machine() : bench::cpu_machine();
  print(attention_table_head(attention, machine));
  std::vector<bench::AttentionRowResult> results;
  attention.run([&](const bench::AttentionRowResult& result, double seconds) {
    results.push_back(result);
    print(attention_table_line(attention, result));
    // After every row: what was measured outlives a peer that ends the program.
    if (!command.json.empty())
      write_file_atomically(command.json, attention_json(attention, machine, results).dump(1) + "\n");
    log::info("[bench] {} of {} rows: {}, {:.1f} s", results.size(), attention.rows().size(), result.row.name,
              seconds);
  });
  print(attention_table_foot(attention, results));
  return ExitCode::kDone;
}

}  // namespace

void add_bench_attention(Program& program, CLI::App& group) {
  auto command = std::make_shared<BenchAttentionCommand>();
  auto options = std::make_shared<bench::AttentionBenchOptions>();
  CLI::App& app = add_command(
      group, program, "attention",
      "measures attention, forward and backward: ours beside LibTorch's in one run, on random numbers.",
      {{"scrna-train bench attention --json attention.json",
        "the whole table on the first GPU, about two minutes"},
       {"scrna-train bench attention --only ragged 'd64 T=8192'",
        "only the rows whose names contain one of these"},
       {"scrna-train bench attention --device cpu", "our CPU attention beside LibTorch's"},
       {"scrna-train bench attention --flash-attention-3 flash_attn_3/_C.so",
        "with a column for FlashAttention-3 (the wheel of xformers 0.0.34 holds this file)"}},
      [command, options] { return bench_attention(*command, *options); });
  add_fields(app, options);
  app.add_option("--only", options->only, "measure only the rows whose names contain one of these words")
      ->type_name("WORD ...")
      ->expected(1, 1000);
  app.add_option("--flash-attention-3", options->flash_attention_3,
                 "shared library that registers flash_attn_3::fwd and ::bwd with LibTorch: one more column")
      ->type_name("FILE.so");
  app.add_option("--json", command->json,
                 "also write everything to this file, which is replaced if it exists")
      ->type_name("FILE");
}

}  // namespace scrna::app
