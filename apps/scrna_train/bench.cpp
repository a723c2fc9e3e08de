// scrna-train bench: the group of benchmarks. Each is a file of its own, bench_<name>.cpp.
#include "apps/scrna_train/command_line.h"

namespace scrna::app {

void add_bench(Program& program) {
  CLI::App& group =
      add_command_group(program, "bench", "measures how fast this machine is, beside peers in the same run");
  add_bench_attention(program, group);
  add_bench_train(program, group);
  add_bench_embed(program, group);
  add_bench_data(program, group);
  group.footer(
      "Examples:\n"
      "  scrna-train bench attention\n"
      "      our attention kernels beside LibTorch's, on the GPU\n"
      "  scrna-train bench attention --device cpu\n"
      "      the same for the processor\n"
      "  scrna-train bench train --config configs/160m.yaml\n"
      "      optimizer steps of the 160M encoder on synthetic cells\n"
      "  scrna-train bench embed --config configs/160m.yaml\n"
      "      how fast it embeds cells\n"
      "  scrna-train bench data cells.h5ad\n"
      "      how fast a file becomes shuffled, tokenized cells\n");
}

}  // namespace scrna::app
