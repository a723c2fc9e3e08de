#!/usr/bin/env python3
"""How fast other loaders deliver the cells of an .h5ad file: data_peers.py FILE.h5ad VOCABULARY.tsv [--json OUR.json]

anndata backed, random single rows and shuffled blocks; scDataset on the same backed file; annbatch on its own format,
with the time and the disk its conversion takes. Untokenized as they come (CSR of 256 cells) and, where it says so,
with median-normalised ranks of 2,048 by NumPy. --json adds our table (scrna-train bench data --json) above. Each row
is the median of three passes. Needs the packages of peers_requirements.txt (compare_data.sh makes the environment);
a peer that is missing, or fails, is named with its reason."""
import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time

import anndata
import numpy as np

REPEATS, BATCH, BLOCK, FETCH = 3, 256, 256, 16
CONTEXT = 2048


def read_medians(vocabulary, genes):
    """Token (-1: unknown) and median of each gene of the file."""
    known = {}
    for line in vocabulary.read_text(encoding="utf-8").splitlines()[1:]:
        token, gene, median = line.split("\t")[:3]
        if float(median) > 0:
            known[gene] = (int(token), float(median))
    pairs = [known.get(gene, (-1, 1)) for gene in genes]
    return np.array([token for token, _ in pairs], np.int32), np.array([median for _, median in pairs], np.float32)


class Tokenizer:
    def __init__(self, tokens, medians):
        self.tokens, self.medians = tokens, medians

    def __call__(self, matrix):
        cells = []
        for begin, end in zip(matrix.indptr[:-1], matrix.indptr[1:]):
            genes = matrix.indices[begin:end]
            tokens = self.tokens[genes]
            scores = matrix.data[begin:end] / self.medians[genes]
            if tokens.min(initial=0) < 0:
                tokens, scores = tokens[tokens >= 0], scores[tokens >= 0]
            cells.append(tokens[np.argsort(-scores)[:CONTEXT]])  # the fastest NumPy has; ties in any order
        return cells


class Backed:
    """The X of a backed file that opens itself in each process: h5py handles do not survive a fork."""

    def __init__(self, path):
        self.path, self.pid, self.adata = path, None, None
        self.num_cells = anndata.read_h5ad(path, backed="r").n_obs

    def __len__(self):
        return self.num_cells

    def x(self):
        if self.pid != os.getpid():
            self.adata, self.pid = anndata.read_h5ad(self.path, backed="r"), os.getpid()
        return self.adata.X


def single_rows(path, count=1000):
    x, rows = Backed(path).x(), np.random.default_rng(0).integers(0, anndata.read_h5ad(path, backed="r").n_obs, count)
    for row in rows:
        x[int(row):int(row) + 1]
    return count


def blocks(path, finish, window_blocks=32):
    backed = Backed(path)
    x, random, cells = backed.x(), np.random.default_rng(0), 0
    starts = random.permutation(np.arange(0, len(backed), BLOCK))
    import scipy.sparse
    for at in range(0, len(starts), window_blocks):
        window = scipy.sparse.vstack([x[int(s):int(s) + BLOCK] for s in starts[at:at + window_blocks]], format="csr")
        order = random.permutation(window.shape[0])
        for first in range(0, len(order), BATCH):
            batch = window[order[first:first + BATCH]]
            finish(batch)
            cells += batch.shape[0]
    return cells


def fetch_backed(backed, indices):
    return backed.x()[np.asarray(indices)]


def index_rows(matrix, indices):
    return matrix[indices]


def scdataset(path, finish, workers):
    from scdataset import BlockShuffling, scDataset
    from torch.utils.data import DataLoader
    dataset = scDataset(Backed(path), BlockShuffling(block_size=BLOCK), batch_size=BATCH, fetch_factor=FETCH,
                        fetch_callback=fetch_backed, batch_callback=index_rows, batch_transform=finish)
    extra = {"prefetch_factor": FETCH + 1} if workers else {}
    cells = 0
    for batch in DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=keep, **extra):
        cells += batch.shape[0] if hasattr(batch, "shape") else len(batch)
    return cells


def keep(batch):
    return batch


def annbatch_rows(path, finish_tokens, add):
    import zarr
    from annbatch import DatasetCollection, Loader
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        collection = DatasetCollection(f"{folder}/collection.zarr")
        collection.add_adatas(adata_paths=[path], shuffle=True)
        seconds = time.monotonic() - start
        disk = sum(file.stat().st_size for file in pathlib.Path(folder).rglob("*") if file.is_file())
        print(f"annbatch: conversion {seconds:.1f} s, {disk / 1e6:.0f} MB on disk")
        for what, finish in (("annbatch, converted", keep), ("annbatch, converted + NumPy tokens", finish_tokens)):
            def one_pass(finish=finish):
                loader = Loader(batch_size=BATCH, chunk_size=64, preload_nchunks=64, shuffle=True, preload_to_gpu=False)
                loader.use_collection(collection)
                cells = 0
                for batch in loader:
                    finish(batch["X"])
                    cells += batch["X"].shape[0]
                return cells
            add(what, 2, one_pass)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("vocabulary", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path, help="what `scrna-train bench data --json` wrote")
    arguments = parser.parse_args()
    path = arguments.file
    genes = anndata.read_h5ad(path, backed="r").var_names
    tokenize = Tokenizer(*read_medians(arguments.vocabulary, genes))

    print(f"{'':<44}{'workers':>8}{'cells/s':>10}{'best':>10}")
    if arguments.json:
        for row in json.loads(arguments.json.read_text())["rows"]:
            name = f"scrna-train: {row['what']}" + (f", {row['context']}" if row["context"] else "")
            best = row["cells"] / min(row["seconds"])
            print(f"{name:<44}{row['workers']:>8}{row['cells_per_second']:>10,.0f}{best:>10,.0f}")

    def add(what, workers, one_pass):
        rates = []
        try:
            for _ in range(REPEATS):
                start = time.monotonic()
                rates.append(one_pass() / (time.monotonic() - start))
        except Exception as problem:  # noqa: BLE001  a peer that fails is a row of the table, not the end of it
            print(f"{what:<44}{workers:>8}  failed: {type(problem).__name__}: {str(problem)[:120]}", flush=True)
            return
        print(f"{what:<44}{workers:>8}{statistics.median(rates):>10,.0f}{max(rates):>10,.0f}", flush=True)

    add("anndata backed, random rows", 1, lambda: single_rows(path))
    add(f"anndata backed, {BLOCK}-row blocks", 1, lambda: blocks(path, keep))
    add(f"anndata backed, {BLOCK}-row blocks + NumPy tokens", 1, lambda: blocks(path, tokenize))
    for workers in (0, 2):
        add("scDataset", workers, lambda: scdataset(path, keep, workers))
        add("scDataset + NumPy tokens", workers, lambda: scdataset(path, tokenize, workers))
    try:
        annbatch_rows(path, tokenize, add)
    except Exception as problem:  # noqa: BLE001
        print(f"annbatch: not measured, {type(problem).__name__}: {str(problem)[:120]}")


if __name__ == "__main__":
    main()
