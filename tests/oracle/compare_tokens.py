"""Recomputes vocabulary, medians and tokens of .h5ad files with anndata and numpy alone, from the rules in
lib/data/README.md, and compares every value with what lib/data made (tokens_dump).

  compare_tokens.py --tokens-dump BINARY [--generate] [FOLDER]

FOLDER holds real files (its subfolder `cells`); --generate writes and compares files of its own.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import anndata
import numpy
import pandas
from scipy import sparse

warnings.simplefilter("ignore")
ENSEMBL = re.compile(r"^(ENS[A-Z]*G\d{11}|WBGene\d+|FBgn\d+)(\.\d+)?$")
SPECIAL = ["<pad>", "<mask>", "<cls>", "<unk>"]
EXACT_VALUES = 2048  # beyond that many cells of a gene its median is within 0.5 %
UNKNOWN = 3


def counts_of(data: anndata.AnnData, name: str):
    matrix = data.X if name == "X" else data.raw.X if name == "raw/X" else data.layers[name.split("/", 1)[1]]
    matrix = sparse.csr_matrix(matrix).astype("float32")
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def gene_ids_of(data: anndata.AnnData, described: dict) -> list[str]:
    var = data.raw.var if described["matrix"] == "raw/X" else data.var
    source = described["gene_ids_from"]
    column = re.match(r"var\['(.*)'\]", source)
    ids = [str(value) for value in (var[column[1]] if column else var.index)]
    if described["gene_id_type"] == "ensembl":
        ids = [ENSEMBL.sub(r"\1", text) for text in ids]
    return ids


def by_gene(matrix, ids: list[str], columns: dict):
    """Cells x genes of the vocabulary (float64 sums of the columns with an id), and each cell's total."""
    known = [i for i, text in enumerate(ids) if text in columns]
    place = sparse.csr_matrix((numpy.ones(len(known)), (known, [columns[ids[i]] for i in known])),
                              (len(ids), len(columns)))
    wide = matrix.astype("float64")
    return sparse.csr_matrix(wide @ place), numpy.asarray(wide.sum(axis=1)).ravel()


def expected_statistics(parts: list) -> tuple:
    """Per gene: number of expressing cells, counts, median of the counts per 10,000 as float32."""
    per_file = []
    for counts, totals in parts:
        columns = counts.tocsc()
        scale = numpy.divide(10000.0, totals, out=numpy.zeros_like(totals), where=totals > 0)
        columns.data = (columns.data * scale[columns.indices]).astype("float32")
        per_file.append(columns)
    sums = sum(numpy.asarray(counts.sum(axis=0)).ravel() for counts, _ in parts)
    cells, medians = [], []
    for gene in range(per_file[0].shape[1]):
        values = numpy.concatenate([f.data[f.indptr[gene]:f.indptr[gene + 1]] for f in per_file]).astype("float64")
        cells.append(len(values))
        medians.append(numpy.float32(numpy.median(values)) if len(values) else 0)
    return numpy.array(cells), sums, numpy.array(medians, "float32")


def expected_tokens(counts, medians: numpy.ndarray, max_tokens: int, add_cls: bool) -> list:
    """Per cell: vocabulary tokens by falling count / median in float32, ties by rising token."""
    result = []
    for cell in range(counts.shape[0]):
        row = slice(counts.indptr[cell], counts.indptr[cell + 1])
        genes = counts.indices[row]
        score = counts.data[row].astype("float32") / medians[genes]
        order = numpy.lexsort((genes, -score))
        tokens = ([2] if add_cls else []) + [int(gene) + 4 for gene in genes[order]]
        result.append(tokens[:max_tokens])
    return result


def read_vocabulary(path: Path) -> pandas.DataFrame:
    table = pandas.read_csv(path, sep="\t", keep_default_na=False, dtype={"gene": str, "median": str},
                            float_precision="round_trip")
    assert table["gene"].tolist()[:4] == SPECIAL and table["token"].tolist() == list(range(len(table)))
    return table.iloc[4:].reset_index(drop=True)


def compare(files: list[Path], binary: str, max_tokens: int, add_cls: bool) -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = subprocess.run([binary, folder, str(max_tokens), str(int(add_cls)), *files], capture_output=True, text=True,
                             check=False)
        if run.returncode != 0:
            return [f"exit code {run.returncode}: {run.stderr.strip()[-300:]}"]
        dump = json.loads((folder / "tokens.json").read_text())
        vocabulary = read_vocabulary(folder / "vocabulary.tsv")
        read = [(anndata.read_h5ad(path), described) for path, described in zip(files, dump["files"])]
        matrices = [counts_of(data, described["matrix"]) for data, described in read]
        ids = [gene_ids_of(data, described) for data, described in read]
        expressed = {text for matrix, names in zip(matrices, ids)
                     for text, count in zip(names, numpy.asarray((matrix > 0).sum(axis=0)).ravel()) if count and text}
        problems = []
        genes = sorted(expressed)
        if vocabulary["gene"].tolist() != genes:
            return [f"genes differ: {len(vocabulary)}, expected {len(genes)}"]
        columns = {text: i for i, text in enumerate(genes)}
        parts = [by_gene(matrix, names, columns) for matrix, names in zip(matrices, ids)]
        cells, sums, medians = expected_statistics(parts)
        ours = vocabulary["median"].astype("float64").to_numpy().astype("float32")
        is_exact = cells <= EXACT_VALUES
        if vocabulary["cells"].tolist() != cells.tolist():
            problems.append("numbers of cells differ")
        if vocabulary["counts"].astype("float64").tolist() != sums.tolist():
            problems.append("sums of counts differ")
        if not numpy.array_equal(ours[is_exact], medians[is_exact]):
            problems.append(f"{(ours[is_exact] != medians[is_exact]).sum()} exact medians differ")
        if not numpy.allclose(ours, medians, rtol=0.005, atol=0):
            problems.append("a median is more than 0.5 % off")
        frequencies = numpy.zeros(len(genes) + 4, "int64")
        for (counts, totals), described, matrix in zip(parts, dump["files"], matrices):
            expected = expected_tokens(counts, ours, max_tokens, add_cls)
            tokens = numpy.fromfile(folder / f"{described['stem']}.tokens.i32", "<i4")
            ends = numpy.fromfile(folder / f"{described['stem']}.ends.i64", "<i8")
            if ends.tolist() != numpy.cumsum([len(cell) for cell in expected]).tolist():
                problems.append(f"{described['stem']}: numbers of tokens differ")
            elif tokens.tolist() != [token for cell in expected for token in cell]:
                problems.append(f"{described['stem']}: tokens or their order differ")
            for cell in expected:
                if len(cell) > int(add_cls):
                    numpy.add.at(frequencies, cell, 1)
            for key, value in {"expressed_genes": matrix.nnz, "vocabulary_genes": counts.nnz, "counts": totals.sum(),
                               "vocabulary_counts": counts.sum()}.items():
                if described[key] != value:
                    problems.append(f"{described['stem']}: {key} {described[key]}, expected {value}")
        if dump["token_frequencies"] != frequencies.tolist():
            problems.append("token frequencies differ")
        return problems


def generate(folder: Path) -> list[list[Path]]:
    random = numpy.random.default_rng(0)

    def write(name: str, matrix, index: list[str], **columns) -> Path:
        data = anndata.AnnData(matrix, obs=pandas.DataFrame(index=[str(i) for i in range(matrix.shape[0])]),
                               var=pandas.DataFrame(columns, index=index))
        data.write_h5ad(folder / f"{name}.h5ad")
        return folder / f"{name}.h5ad"

    def counts(cells: int, genes: int, part: float = 0.3):
        return (random.negative_binomial(1, 0.2, (cells, genes)) * (random.random((cells, genes)) < part)).astype("float32")

    # Versions of one gene, a symbol twice, a gene without a name, ties, empty cells, genes that nobody expresses.
    versions = write("versions", sparse.csr_matrix(counts(300, 40)), [f"ENSG{i // 2:011d}.{i}" for i in range(40)])
    twice = write("twice", sparse.csc_matrix(counts(300, 40)), [f"GENE{i % 30}" for i in range(39)] + [""])
    ties = write("ties", numpy.ones((50, 30), "float32"), [f"G{i}" for i in range(30)])
    column = write("column", sparse.csr_matrix(counts(100, 30, 0.05)), [f"GENE{i}" for i in range(30)],
                   gene_ids=[f"ENSG{i:011d}.3" for i in range(30)])
    many = write("many_cells", sparse.csr_matrix(counts(9000, 25, 0.7)), [f"GENE{i}" for i in range(25)])
    wide = write("wide", sparse.csr_matrix(counts(40, 3000, 0.9)), [f"GENE{i}" for i in range(3000)])
    return [[versions], [twice], [ties], [column], [many], [wide], [versions, column], [twice, many, wide]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens-dump", required=True)
    parser.add_argument("--generate", action="store_true")
    parser.add_argument("folder", nargs="?", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sets = generate(Path(name)) if arguments.generate else []
        if arguments.folder:
            cells = sorted((arguments.folder / "cells").glob("*.h5ad"))
            sets += [[path] for path in cells]
            sets.append([path for path in cells if path.name.startswith("human_pbmc_")])
        num_failed = 0
        for files in sets:
            for max_tokens, add_cls in [(2048, False), (64, True)] if len(sets) < 10 else [(2048, False)]:
                problems = compare(files, arguments.tokens_dump, max_tokens, add_cls)
                num_failed += bool(problems)
                names = ", ".join(path.name for path in files)
                print(f"{'FAIL' if problems else 'ok  '} {names}, {max_tokens} tokens{', <cls>' if add_cls else ''}: "
                      f"{'; '.join(problems) or 'equal'}")
    sys.exit(1 if num_failed or not sets else 0)


if __name__ == "__main__":
    main()
