#include "lib/train/config_reference.h"

#include "lib/config/config.h"
#include "lib/train/train_config.h"

namespace scrna::train {
namespace {

constexpr const char* kIntroduction = R"(# Configurations

One YAML file describes a run. What a file leaves out keeps its default; `--set key=value` comes last and wins; there is
nothing else (no environment, no includes). An unknown or repeated key, a value of another type or outside its range is an
error that names the line and the nearest known key. `scrna-train train --config FILE --print-config` shows the result,
which every run keeps as `config.yaml`.

| file | model | for |
|---|---|---|
| `demo.yaml` | 2 x 128, 4 heads | minutes on a laptop: learns something from a few thousand cells |
| `70m.yaml` | 12 x 512, 8 heads | 72M parameters with 32,000 genes |
| `160m.yaml` | 12 x 768, 12 heads | the model of arXiv 2604.27124: 154M with its 43,804 tokens |
| `400m.yaml` | 24 x 1024, 16 heads | 394M with 43,804 |
| `600m.yaml` | 24 x 1280, 20 heads | 587M with 43,804 |
| `1.4b.yaml` | 24 x 2048, 16 heads | 1.39B with 43,804 |

[`stress/`](stress/README.md) holds tables of runs for `scrna-train stress`.

What the paper leaves open, and what was chosen here: the position of a gene is its rank, a learned embedding; the output
head is untied from the gene embedding (only so does 160M come out); linear maps have biases; no `<cls>` token; no
LayerScale, no QK normalisation
(`model.qk_norm` has it). Weight decay applies to matrices and embeddings, not to biases and LayerNorm.

## Every setting

This part is generated: `scrna-train train --print-reference > configs/README.md`.
)";

}  // namespace

std::string config_reference() { return kIntroduction + config::reference_markdown<TrainConfig>(); }

}  // namespace scrna::train
