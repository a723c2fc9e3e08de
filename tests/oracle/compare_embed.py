"""The files that `scrna-train embed` writes, with h5py, anndata and scanpy: everything of the input keeps its bytes, what is
added reads as AnnData and serves scanpy, and the file beside has the same rows.

  compare_embed.py SCRNA_TRAIN
"""
import sys
import tempfile
from pathlib import Path

import anndata
import h5py
import numpy
import pandas
import scanpy
from scipy import sparse

from small_model import run, write_config


def objects(path):
    """Name -> (attributes, type, raw values) of every object of the file."""
    found = {}

    def visit(name, item):
        attributes = {key: (str(value), getattr(value, "dtype", None)) for key, value in item.attrs.items()}
        if isinstance(item, h5py.Dataset):
            values = item[()]
            is_text = h5py.check_string_dtype(item.dtype) is not None
            found[name] = (attributes, item.dtype, item.shape, item.chunks, item.compression,
                           values if is_text and item.shape == () else
                           list(values.ravel()) if is_text else values.tobytes())
        else:
            found[name] = (attributes,)

    with h5py.File(path) as file:
        found["/"] = ({key: str(value) for key, value in file.attrs.items()},)
        file.visititems(visit)
    return found


def rich_file(path, genes):
    """What real files hold besides X: every kind of matrix and column."""
    random = numpy.random.default_rng(0)
    counts = sparse.random(50, len(genes), 0.3, "csr", "float32", random, lambda n: random.integers(1, 9, n).astype("float32"))
    counts = sparse.vstack([counts, sparse.csr_matrix((2, len(genes)), dtype="float32")]).tocsr()  # two empty cells
    n = counts.shape[0]
    data = anndata.AnnData(counts.multiply(0.5).tocsr(), pd_obs(random, n), pandas.DataFrame(index=genes))
    data.layers["counts"] = counts
    data.raw = data
    data.obsm["X_pca"] = random.normal(size=(n, 5))
    data.varm["PCs"] = random.normal(size=(len(genes), 5))
    data.obsp["distances"] = sparse.random(n, n, 0.1, "csr")
    data.uns["nested"] = {"text": "é", "numbers": numpy.arange(3), "table": pandas.DataFrame({"a": [1, 2]})}
    data.write_h5ad(path, compression="gzip")
    return data


def pd_obs(random, n):
    return pandas.DataFrame({"type": pandas.Categorical(random.choice(["a", "b"], n)), "text": [f"t{i}é" for i in range(n)],
                             "flag": random.random(n) > 0.5, "score": random.random(n)},
                            index=[f"cell {i}" for i in range(n)])


def check_copy(program, run_folder, cells, out, *flags):
    run(program, "embed", "--checkpoint", run_folder, "--device", "cpu", "--out", out, *flags, cells)
    before, after = objects(cells), objects(out)
    added = sorted(name for name in after if name not in before)
    assert all(name == "obsm" or name == "uns" or name == "obsm/X_scrna" or name.split("/")[:2] == ["uns", "scrna"] for name in added), added
    for name, value in before.items():
        assert after[name] == value, f"{cells.name}: {name} is not what it was"
    return anndata.read_h5ad(out)


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells = folder / "cells.h5ad"
        run(program, "synthesize", "--out", cells, "--cells", "300", "--genes", "200", "--median-genes", "50", "--programs", "4")
        config = folder / "config.yaml"
        write_config(config, cells, width=16)
        run(program, "train", "--config", config, "--set", f"run.dir={folder / 'run'}")

        embedded = check_copy(program, folder / "run", cells, folder / "out.h5ad")
        rows = embedded.obsm["X_scrna"]
        assert rows.shape == (300, 16) and rows.dtype == "float32" and numpy.isfinite(rows).all()
        record = embedded.uns["scrna"]
        assert record["checkpoint_step"] == 2 and record["pooling"] == "mean" and record["layer"] == 1, record
        assert len(record["weights_sha256"]) == len(record["vocabulary_sha256"]) == len(record["config_sha256"]) == 64
        print("ok   a copy: every other object keeps its bytes, anndata reads what was added")

        scanpy.pp.neighbors(embedded, n_neighbors=15, use_rep="X_scrna", random_state=0)
        assert embedded.obsp["connectivities"].shape == (300, 300)
        embedded.write_h5ad(folder / "again.h5ad")
        assert numpy.array_equal(anndata.read_h5ad(folder / "again.h5ad").obsm["X_scrna"], rows)
        print("ok   scanpy finds neighbours in it, and anndata writes it again")

        run(program, "embed", "--checkpoint", folder / "run", "--device", "cpu", "--beside", "--out", folder / "beside.h5ad", cells)
        beside = anndata.read_h5ad(folder / "beside.h5ad")
        assert beside.shape == (300, 0) and list(beside.obs_names) == list(embedded.obs_names)
        assert numpy.array_equal(beside.obsm["X_scrna"], rows) and beside.uns["scrna"] == record
        print("ok   beside: the same rows under the same names")

        data = rich_file(folder / "rich.h5ad", list(embedded.var_names))
        rich = check_copy(program, folder / "run", folder / "rich.h5ad", folder / "rich-out.h5ad")
        missing = numpy.isnan(rich.obsm["X_scrna"])
        assert numpy.array_equal(missing.all(1), missing.any(1)) and missing.all(1).tolist() == [False] * 50 + [True] * 2
        assert rich.uns["scrna"]["matrix"] == "layers/counts" and rich.uns["scrna"]["cells_without_embedding"] == 2
        assert numpy.array_equal(rich.obsm["X_pca"], data.obsm["X_pca"])
        print("ok   layers, raw, obsp, varm, nested uns; empty cells are rows of NaN")

        # The same cells in another order and among others: the same vectors, to the rounding of products.
        order = numpy.random.default_rng(1).permutation(300)[:120]
        anndata.read_h5ad(cells)[order].copy().write_h5ad(folder / "some.h5ad")
        some = check_copy(program, folder / "run", folder / "some.h5ad", folder / "some-out.h5ad", "--tokens-per-pack", "200")
        difference = numpy.abs(some.obsm["X_scrna"] - rows[order]).max()
        assert difference < 1e-5, difference
        print(f"ok   order and neighbours of cells do not show (at most {difference:.1e})")


if __name__ == "__main__":
    main()
