"""Compares `scrna-train inspect --json` with numbers computed from what the anndata package reads.

  compare_inspect.py SCRNA_TRAIN FOLDER...

Exit code 1 when a number differs, when a readable file is refused, or when no file was compared.
"""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import anndata
import numpy
import pandas
from scipy import sparse

warnings.simplefilter("ignore")
ENSEMBL = re.compile(r"(ENS[A-Z]*G\d{11}|WBGene\d+|FBgn\d+)(\.\d+)?")
SYMBOL = re.compile(r"[A-Za-z].{0,39}", re.DOTALL)


def matrices_of(data: anndata.AnnData) -> dict:
    matrices = {} if data.X is None else {"X": data.X}
    if data.raw is not None:
        matrices["raw/X"] = data.raw.X
    return matrices | {f"layers/{name}": data.layers[name] for name in data.layers}


def stored_values(path: Path, name: str, matrix) -> int:
    """Entries as they lie in the file: the package merges nothing, but a dense matrix has only non-zeros to count."""
    if sparse.issparse(matrix):
        return len(matrix.data)
    return int(numpy.count_nonzero(numpy.asarray(matrix)))


def as_csr(matrix) -> sparse.csr_matrix:
    if not sparse.issparse(matrix):
        matrix = numpy.asarray(matrix)
        if matrix.ndim == 1:
            matrix = matrix[:, None]
    result = sparse.csr_matrix(matrix.astype("float64"))
    result.sum_duplicates()
    return result


def holds_counts(matrix: sparse.csr_matrix) -> bool:
    values = matrix.data[matrix.data != 0]
    return bool(len(values) and numpy.isfinite(values).all() and (values > 0).all()
                and (abs(values - values.round()) <= 1e-4).all())


def kind_of(texts) -> str:
    texts = [str(text) for text in texts]
    for kind, pattern in [("ensembl", ENSEMBL), ("symbol", SYMBOL)]:
        matches = sum(pattern.fullmatch(text) is not None for text in texts)
        if matches and 2 * matches >= len(texts):
            return kind
    return "other"


def gene_id_type(var: pandas.DataFrame) -> str:
    kinds = [kind_of(var.index)] + [kind_of(var[column].astype("object").fillna("")) for column in var.columns
                                    if not pandas.api.types.is_numeric_dtype(var[column].dtype)]
    return "ensembl" if "ensembl" in kinds else kinds[0]


def close(ours, theirs) -> bool:
    if ours is None:  # JSON has no NaN
        return not numpy.isfinite(theirs)
    return bool(abs(ours - theirs) <= 1e-6 * max(1.0, abs(theirs)))


def compare_distribution(name: str, ours: dict, values: numpy.ndarray) -> list[str]:
    if not numpy.isfinite(values).all():
        return []  # a matrix with NaN: that it is no counts matrix is checked, its sums mean nothing
    theirs = {"min": values.min(), "median": numpy.median(values), "mean": values.mean(), "max": values.max(),
              "q05": numpy.quantile(values, 0.05), "q95": numpy.quantile(values, 0.95)}
    return [f"{name}.{key}: {ours[key]}, expected {value}" for key, value in theirs.items() if not close(ours[key], value)]


def compare_obs(ours: list, obs: pandas.DataFrame) -> list[str]:
    problems = []
    if [column["name"] for column in ours] != list(obs.columns):
        return [f"obs columns {[column['name'] for column in ours]}, expected {list(obs.columns)}"]
    for column in ours:
        theirs = obs[column["name"]]
        if "problem" in column:
            problems.append(f"obs {column['name']}: {column['problem']}")
            continue
        if column["missing"] != int(theirs.isna().sum()):
            problems.append(f"obs {column['name']}: {column['missing']} missing, expected {theirs.isna().sum()}")
        if isinstance(theirs.dtype, pandas.CategoricalDtype):
            if column["kind"] != "categorical" or column["categories"] != len(theirs.cat.categories):
                problems.append(f"obs {column['name']}: {column}, expected {len(theirs.cat.categories)} categories")
        elif column["kind"] in ("integer", "float") and theirs.notna().any():
            numbers = theirs.dropna().astype("float64")
            if not (close(column["min"], numbers.min()) and close(column["max"], numbers.max())):
                problems.append(f"obs {column['name']}: {column}, expected {numbers.min()} to {numbers.max()}")
    return problems


def compare(ours: dict, path: Path, data: anndata.AnnData) -> list[str]:
    matrices = matrices_of(data)
    stored = matrices[ours["matrix"]]
    chosen = as_csr(stored)
    var = data.raw.var if ours["matrix"] == "raw/X" else data.var
    lengths, sums = numpy.asarray((chosen > 0).sum(axis=1)).ravel(), numpy.asarray(chosen.sum(axis=1)).ravel()
    expected = {
        "cells": data.n_obs, "genes": chosen.shape[1], "stored_values": stored_values(path, ours["matrix"], stored),
        "is_counts": holds_counts(chosen), "gene_id_type": gene_id_type(var),
        "genes_expressed": int(((chosen > 0).sum(axis=0) > 0).sum()),
    }
    problems = [f"{key}: {ours[key]}, expected {value}" for key, value in expected.items() if ours[key] != value]
    if not close(ours["total_counts"], sums.sum()) and expected["is_counts"]:
        problems.append(f"total_counts: {ours['total_counts']}, expected {sums.sum()}")
    if not ours["is_counts"]:
        with_counts = [name for name, matrix in matrices.items() if holds_counts(as_csr(matrix))]
        problems += [f"{name} holds counts but {ours['matrix']} was chosen" for name in with_counts]
    problems += compare_distribution("expressed_genes", ours["expressed_genes"], lengths)
    if expected["is_counts"]:
        problems += compare_distribution("counts_per_cell", ours["counts_per_cell"], sums)
    for context in ours["contexts"]:
        if context["truncated_cells"] != int((lengths > context["max_tokens"]).sum()):
            problems.append(f"truncated cells at {context['max_tokens']}: {context['truncated_cells']}")
    return problems + compare_obs(ours["obs_columns"], data.obs)


def examine(binary: str, path: Path) -> tuple[str, bool]:
    run = subprocess.run([binary, "inspect", "--json", path, "--max-tokens", "16,512,2048"],
                         capture_output=True, text=True, check=False)
    try:
        data = anndata.read_h5ad(path)
    except Exception:  # whatever it raises, it does not read the file
        data = None
    if run.returncode == 3 and run.stdout == "" and run.stderr.count("error:") == 1:
        if data is None or data.n_obs == 0 or not matrices_of(data):
            return "refused by both", True
        return f"refused: {run.stderr.strip()}", False
    if run.returncode != 0:
        return f"exit code {run.returncode}: {run.stderr.strip()[-300:]}", False
    if data is None:
        return "read; anndata refuses it", True
    problems = compare(json.loads(run.stdout), path, data)
    return ("; ".join(problems) or "equal"), not problems


def main() -> None:
    binary, folders = sys.argv[1], [Path(folder) for folder in sys.argv[2:]]
    files = sorted(path for folder in folders for path in folder.rglob("*.h5ad"))
    num_failed = num_equal = 0
    for path in files:
        outcome, passes = examine(binary, path)
        num_failed += not passes
        num_equal += outcome == "equal"
        print(f"{'ok  ' if passes else 'FAIL'} {path.name}: {outcome}")
    print(f"{len(files)} files: {num_equal} equal, {num_failed} failed")
    sys.exit(1 if num_failed or not num_equal else 0)


if __name__ == "__main__":
    main()
