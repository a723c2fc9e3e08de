"""Models that `scrna-train export` writes, in plain PyTorch (scripts/scrna_torch.py): the same embeddings as
`scrna-train embed`, for every pooling and several layers; and back: a file that Python writes gives the program the same
embeddings, byte for byte where nothing was changed, and the changed ones where something was.

  compare_torch.py SCRNA_TRAIN
"""
import subprocess
import sys
import tempfile
from pathlib import Path

import anndata
import numpy
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import scrna_torch  # noqa: E402

TOLERANCE = 1e-4  # of entries of size 1: the final LayerNorm scales each token to that
CONFIG = """
data: {{files: {cells}, heldout_fraction: 0, min_genes: 15}}
tokenizer: {{max_tokens: 64, add_cls: {cls}}}
model: {{num_layers: 3, width: 48, num_heads: 3, feed_forward_width: 80, initializer_range: 0.2{model}}}
optim: {{warmup_steps: 1, learning_rate: 0.003}}
train: {{steps: 8, global_batch_cells: 16, device: cpu, num_threads: 1}}
heldout: {{every_steps: 0}}
"""
# The forms of the model, as settings of `model`; those that a build does not know are left out and named.
FORMS = ["attention: sigmoid", "attention: softmax", "attention: sigmoid, qk_norm: layer_norm",
         "attention: softmax, qk_norm: rms_norm", "attention: sigmoid, attention_bias: zero"]


def run(*words, check=True):
    result = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if check and result.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}: {result.stderr}")
    return result


def embed(program, model, cells, out, *flags):
    run(program, "embed", "--checkpoint", model, "--device", "cpu", "--out", out, "--force", *flags, cells)
    return anndata.read_h5ad(out).obsm["X_scrna"]


def with_torch(model, cells, layer, pooling):
    data = anndata.read_h5ad(cells)
    rows = numpy.full((data.n_obs, model.head["norm"].weight.shape[0]), numpy.nan, "float32")
    for i in range(data.n_obs):
        row = data.X[i].tocsr()
        counts = {data.var_names[column]: value for column, value in zip(row.indices, row.data)}
        if sum(gene in model.token_of for gene in counts) >= 15:
            rows[i] = model.embed(model.tokenize(counts), layer, pooling).numpy()
    return rows


def largest_difference(ours, theirs):
    assert numpy.array_equal(numpy.isnan(ours), numpy.isnan(theirs)), "other cells are left out"
    return numpy.nanmax(numpy.abs(ours - theirs))


def compare_form(program, folder, cells, form, cls):
    name = f"{form}{', add_cls' if cls else ''}"
    work = folder / "".join(c if c.isalnum() else "-" for c in name)
    work.mkdir()
    config = work / "config.yaml"
    config.write_text(CONFIG.format(cells=cells, cls="true" if cls else "false", model=", " + form))
    trained = run(program, "train", "--config", config, "--set", f"run.dir={work / 'run'}", check=False)
    if trained.returncode == 2 and "unknown" in trained.stderr:
        print(f"--   {name}: this build does not have it")
        return
    if trained.returncode != 0:
        sys.exit(f"{name}: {trained.stderr}")
    exported = work / "model.safetensors"
    run(program, "export", "--checkpoint", work / "run", "--out", exported)
    model = scrna_torch.load(exported)
    worst = 0.0
    for layer in (-1, 0, 2):
        for pooling in ("mean", "max", "first"):
            ours = embed(program, exported, cells, work / "out.h5ad", "--layer", str(layer), "--pooling", pooling)
            difference = largest_difference(ours, with_torch(model, cells, layer, pooling))
            assert difference < TOLERANCE, f"{name}: layer {layer}, {pooling}: {difference}"
            worst = max(worst, difference)
    assert 0 < numpy.isnan(ours[:, 0]).sum() < len(ours), "some cells should have too few genes, not all"

    # Back, unchanged and changed.
    last = embed(program, work / "run", cells, work / "out.h5ad")
    scrna_torch.save(model, work / "again.safetensors")
    again = embed(program, work / "again.safetensors", cells, work / "out.h5ad")
    assert last.tobytes() == again.tobytes(), f"{name}: other bytes after a copy by Python"
    with torch.no_grad():
        model.layers[1].attention["qkv"].weight.mul_(1.5)
        model.embedding["gene"].weight[10:].mul_(-1)
    scrna_torch.save(model, work / "changed.safetensors")
    changed = embed(program, work / "changed.safetensors", cells, work / "out.h5ad")
    assert largest_difference(changed, last) > 100 * TOLERANCE, f"{name}: the changed weights do not show"
    difference = largest_difference(changed, with_torch(model, cells, -1, "mean"))
    assert difference < TOLERANCE, f"{name}: changed in Python: {difference}"
    print(f"ok   {name}: at most {max(worst, difference):.1e} apart, in both directions")


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells = folder / "cells.h5ad"
        run(program, "synthesize", "--out", cells, "--cells", "60", "--genes", "150", "--median-genes", "40", "--programs", "4",
            "--seed", "3")
        for form in FORMS:
            compare_form(program, folder, cells, form, cls=False)
        compare_form(program, folder, cells, FORMS[0], cls=True)


if __name__ == "__main__":
    main()
