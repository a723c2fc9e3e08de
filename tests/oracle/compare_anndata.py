"""Compares what lib/data reads from .h5ad files with what the anndata package reads: every value of every matrix
(as float32), every obs column, every var column. 10x .h5 files are compared with a reading by h5py alone.

  compare_anndata.py --data-dump BINARY [--table FILE --title TITLE] FOLDER...

--table replaces the table under the heading TITLE in a Markdown file. Exit code 1 when a file reads differently,
or cannot be read without one clear sentence about it.
"""

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import anndata
import h5py
import numpy
import pandas
from scipy import sparse

warnings.simplefilter("ignore")
FILES = re.compile(r"\.(h5ad|h5|h5mu|loom|zip)$")


def as_csr(matrix) -> sparse.csr_matrix:
    """float32, genes ascending, duplicates summed, no zeros: the form in which lib/data gives cells."""
    if not sparse.issparse(matrix):
        matrix = numpy.asarray(matrix)
        if matrix.ndim == 1:
            matrix = matrix[:, None]
    result = sparse.csr_matrix(matrix.astype("float32"))
    result.sum_duplicates()
    result.eliminate_zeros()
    return result


def read_csr(folder: Path, described: dict) -> sparse.csr_matrix:
    stem = folder / described["stem"]
    sizes = numpy.fromfile(f"{stem}.row_sizes.i64", "<i8")
    genes = numpy.fromfile(f"{stem}.genes.i32", "<i4")
    values = numpy.fromfile(f"{stem}.values.f32", "<f4")
    indptr = numpy.concatenate([[0], numpy.cumsum(sizes)])
    return sparse.csr_matrix((values, genes, indptr), (described["cells"], described["genes"]))


def compare_matrix(name: str, expected, folder: Path, described: dict) -> list[str]:
    if "error" in described:
        return [f"{name}: {described['error']}"]
    ours, theirs = read_csr(folder, described), as_csr(expected)
    if ours.shape != theirs.shape:
        return [f"{name}: shape {ours.shape}, anndata {theirs.shape}"]
    for part in ["indptr", "indices", "data"]:
        a, b = getattr(ours, part), getattr(theirs, part)
        if not numpy.array_equal(a, b, equal_nan=part == "data"):
            return [f"{name}: {part} differ"]
    return []


def as_text(value) -> str:
    if value is None or value is pandas.NA or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(value)


def same_text(ours: str, theirs) -> bool:
    if ours == as_text(theirs):
        return True
    if isinstance(theirs, (float, numpy.floating)):  # the shortest decimal of a float32 is not that of a float64
        return ours != "" and float(ours) == float(theirs)
    return False


def compare_texts(name: str, ours: list, column: pandas.Series) -> list[str]:
    theirs = column.tolist()
    if len(ours) != len(theirs) or not all(same_text(a, b) for a, b in zip(ours, theirs)):
        return [f"{name}: texts differ"]
    return []


def compare_obs(name: str, ours: dict | None, column: pandas.Series) -> list[str]:
    if ours is None:
        return [f"{name}: not read"]
    if "error" in ours or ours["kind"] == "other":
        return [f"{name}: {ours.get('error', 'cannot be read')}"]
    problems = []
    if isinstance(column.dtype, pandas.CategoricalDtype):
        if ours["kind"] != "categorical":
            return [f"{name}: read as {ours['kind']}, is categorical"]
        if ours["codes"] != column.cat.codes.tolist():
            problems.append(f"{name}: codes differ")
        categories = column.cat.categories.tolist()
        if len(ours["categories"]) != len(categories) or not all(map(same_text, ours["categories"], categories)):
            problems.append(f"{name}: categories differ")
        return problems
    if pandas.api.types.is_numeric_dtype(column.dtype):
        theirs = column.astype("Float64").to_numpy(dtype="float64", na_value=math.nan)
        if not numpy.array_equal(numpy.array(ours["numbers"], "float64"), theirs, equal_nan=True):
            problems.append(f"{name}: numbers differ")
    if "codes" in ours:
        texts = [ours["categories"][code] if code >= 0 else "" for code in ours["codes"]]
        problems += compare_texts(name, texts, column)
    return problems


def expected_matrices(data: anndata.AnnData) -> dict:
    matrices = {} if data.X is None else {"X": data.X}
    if data.raw is not None:
        matrices["raw/X"] = data.raw.X
    return matrices | {f"layers/{name}": data.layers[name] for name in sorted(data.layers)}


def compare(dump: dict, folder: Path, data: anndata.AnnData) -> list[str]:
    problems = []
    matrices = expected_matrices(data)
    if sorted(matrices) != sorted(dump["matrices"]):
        problems.append(f"matrices {sorted(dump['matrices'])}, anndata {sorted(matrices)}")
    for name, matrix in matrices.items():
        if name not in dump["matrices"]:
            continue
        described = dump["matrices"][name]
        problems += compare_matrix(name, matrix, folder, described)
        var = data.raw.var if name == "raw/X" else data.var
        if described.get("var_index", var.index.tolist()) != var.index.tolist():
            problems.append(f"var index of {name} differs")
        ours = dump.get("var", {}).get(name, {})
        if sorted(ours) != sorted(var.columns):
            problems.append(f"var columns of {name} differ")
        for column in set(ours) & set(var.columns):
            if isinstance(ours[column], dict):
                problems.append(f"var {column}: {ours[column]['error']}")
            else:
                problems += compare_texts(f"var {column}", ours[column], var[column])
    if dump["obs_index"] != data.obs.index.tolist():
        problems.append("obs index differs")
    ours = dump.get("obs") or {}
    if sorted(ours) != sorted(data.obs.columns):
        problems.append("obs columns differ")
    for column in data.obs.columns:
        problems += compare_obs(f"obs {column}", ours.get(column), data.obs[column])
    return problems


def tenx_groups(path: Path) -> list[str]:
    """The groups with a matrix of a 10x .h5 file; none for other files."""
    try:
        with h5py.File(path) as file:
            return [] if "obs" in file else [name for name in file if isinstance(file[name], h5py.Group)
                                             and {"barcodes", "indptr"} <= set(file[name])]
    except OSError:
        return []


def read_tenx(path: Path, name: str, genome: str = "") -> anndata.AnnData:
    """A 10x .h5 file by h5py alone, as scanpy.read_10x_h5 makes an AnnData of it."""
    with h5py.File(path) as file:
        group = file[name]
        features = group.get("features")
        shape = group["shape"][()]
        matrix = sparse.csr_matrix((group["data"][()], group["indices"][()], group["indptr"][()]), shape=(shape[1], shape[0]))
        if features is None:
            var = pandas.DataFrame({"gene_ids": group["genes"].asstr()[()]}, index=group["gene_names"].asstr()[()])
        else:
            columns = {"id": "gene_ids", "feature_type": "feature_types"}
            var = pandas.DataFrame({columns.get(column, column): features[column].asstr()[()] for column in features
                                    if column not in ("name", "_all_tag_keys")}, index=features["name"].asstr()[()])
        data = anndata.AnnData(matrix, obs=pandas.DataFrame(index=group["barcodes"].asstr()[()]), var=var)
        if features is None:
            return data
        kept = (data.var["feature_types"] == "Gene Expression") & (not genome or data.var["genome"] == genome)
        return data[:, kept].copy()


def examine_genomes(path: Path, binary: str, groups: list[str]) -> list[str]:
    """The problems of reading each genome of a 10x .h5 file with several, one after another."""
    if groups == ["matrix"]:
        genomes = sorted(set(read_tenx(path, "matrix").var["genome"]))
        choices = [("matrix", genome) for genome in genomes] if len(genomes) > 1 else []
    else:
        choices = [(group, group) for group in groups] if len(groups) > 1 else []
    problems = []
    for group, genome in choices:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([binary, path, folder, genome], capture_output=True, check=False)
            dump = json.loads((Path(folder) / "dump.json").read_text(errors="replace"))
            if "error" in dump:
                problems.append(f"{genome}: {dump['error']}")
            else:
                data = read_tenx(path, group, genome if group == "matrix" else "")
                problems += [f"{genome}: {problem}" for problem in compare(dump, Path(folder), data)]
    if problems:
        return problems
    return [f"equal with data.genome={genome}" for _, genome in choices]


def describe(dump: dict) -> str:
    parts = []
    for name, matrix in dump["matrices"].items():
        parts.append(f"{name}: {matrix['layout']} {matrix['type']}" if "layout" in matrix else f"{name}: refused")
    shapes = [matrix for matrix in dump["matrices"].values() if "genes" in matrix]
    size = f"{dump['cells']:,} x {shapes[0]['genes']:,}; " if shapes else ""
    return size + ", ".join(parts) + f"; {len(dump.get('obs') or {})} obs columns"


def examine(path: Path, binary: str) -> tuple[str, str, bool]:
    """What the file is, the outcome in words, and whether the test passes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = subprocess.run([binary, path, folder], capture_output=True, text=True, check=False)
        if run.returncode not in (0, 3):
            return "", f"**crashed**: exit code {run.returncode} {run.stderr[-200:]}", False
        dump = json.loads((folder / "dump.json").read_text(errors="replace"))
        groups = tenx_groups(path)
        genomes = examine_genomes(path, binary, groups)
        wrong = [outcome for outcome in genomes if not outcome.startswith("equal")]
        if wrong:
            return "", "**different**: " + "; ".join(wrong), False
        try:
            if len(groups) > 1:
                raise ValueError(f"several genomes: {groups}")
            data, refusal = read_tenx(path, groups[0]) if groups else anndata.read_h5ad(path), ""
        except Exception as error:  # whatever it raises, it does not read the file
            data, refusal = None, type(error).__name__
        if "error" in dump:
            sentence = dump["error"].replace(str(path), path.name)
            by = "" if data is not None or groups else " by anndata too"
            return "", "; ".join([f"refused{by}: {sentence}", *genomes]), bool(sentence)
        what = f"10x: {describe(dump)}" if groups else describe(dump)
        if data is None:
            return what, f"read; anndata refuses it ({refusal})", True
        problems = compare(dump, folder, data)
        refused = [problem for problem in problems if str(path) in problem]
        problems = [problem for problem in problems if problem not in refused]
        if problems:
            return what, "**different**: " + "; ".join(problems), False
        parts = "; ".join(problem.replace(str(path), path.name) for problem in refused)
        return what, f"equal, except for what is refused: {parts}" if refused else "; ".join(["equal", *genomes]), True


def write_table(path: Path, title: str, rows: list[tuple[str, str, str]]) -> None:
    text = path.read_text()
    lines = [f"## {title}", "", "| file | what was read | compared with anndata " + anndata.__version__ + " |",
             "| --- | --- | --- |"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    table = "\n".join(lines) + "\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"{path}: has no heading '## {title}'")
    path.write_text(pattern.sub(lambda _: table + "\n", text).rstrip("\n") + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dump", required=True)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--title", default="")
    parser.add_argument("folders", nargs="+", type=Path)
    arguments = parser.parse_args()
    files = sorted((path, folder) for folder in arguments.folders for path in folder.rglob("*")
                   if FILES.search(path.name))
    rows, num_failed = [], 0
    for path, folder in files:
        what, outcome, passes = examine(path, arguments.data_dump)
        num_failed += not passes
        rows.append((str(path.relative_to(folder)), what, outcome))
        print(f"{'ok  ' if passes else 'FAIL'} {path.name}: {outcome}")
    if arguments.table:
        write_table(arguments.table, arguments.title, rows)
    num_equal = sum(outcome.startswith("equal") for _, _, outcome in rows)
    print(f"{len(files)} files: {num_equal} equal, {num_failed} failed")
    sys.exit(1 if num_failed or not files else 0)


if __name__ == "__main__":
    main()
