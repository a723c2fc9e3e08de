"""Opens files that `scrna-train synthesize` wrote with the anndata package and checks that they are what its help
promises.

  check_synthesized.py SCRNA_TRAIN
"""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import anndata
import numpy
from scipy import sparse


def synthesize(binary: str, path: Path, *flags: str) -> str:
    """Writes the file and returns what was printed."""
    return subprocess.run([binary, "synthesize", "--out", path, *flags], check=True, capture_output=True, text=True).stdout


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_contents(path: Path, cells: int, genes: int, types: int, donors: int, index: str, column: str) -> anndata.AnnData:
    data = anndata.read_h5ad(path)
    assert data.shape == (cells, genes), data.shape
    assert isinstance(data.X, sparse.csr_matrix) and data.X.dtype == "float32" and data.X.has_canonical_format
    values = data.X.data
    assert (values >= 1).all() and (values == values.round()).all(), "counts are positive whole numbers"
    assert list(data.obs.columns) == ["cell_type", "donor", "total_counts", "n_genes"], data.obs.columns
    assert data.obs["cell_type"].cat.categories.tolist() == [f"type-{i}" for i in range(types)]
    assert data.obs["donor"].cat.categories.tolist() == [f"donor-{i}" for i in range(donors)]
    assert set(data.obs["donor"].cat.codes) == set(range(donors)), "a donor has no cell"
    assert numpy.array_equal(data.obs["total_counts"], numpy.asarray(data.X.sum(axis=1)).ravel())
    assert numpy.array_equal(data.obs["n_genes"], numpy.diff(data.X.indptr))
    assert data.obs_names.is_unique and data.var_names.is_unique
    assert data.var_names.str.match(index).all() and data.var[column].is_unique
    assert "not measured" in data.uns["synthesized"]["source"], "synthetic cells must say so"
    assert data.uns["synthesized"]["cells"] == cells and data.uns["synthesized"]["genes"] == genes
    return data


def main() -> None:
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = ["--cells", "1100", "--genes", "700", "--median-genes", "150", "--cell-types", "5", "--donors", "3"]
        printed = synthesize(binary, folder / "a.h5ad", *small, "--seed", "7", "--num-workers", "1")
        data = check_contents(folder / "a.h5ad", 1100, 700, 5, 3, r"ENSG\d{11}$", "gene_symbol")
        assert data.uns["synthesized"]["seed"] == 7
        median = numpy.median(data.obs["n_genes"])
        assert 120 < median < 180, f"asked for a median of 150 expressed genes, got {median}"
        assert "1,100 cells x 700 genes" in printed and "scrna-train inspect" in printed, printed
        print("ok   obs, var and uns as documented")

        # Modification times in the file would show after a second.
        subprocess.run(["sleep", "1.1"], check=True)
        synthesize(binary, folder / "b.h5ad", *small, "--seed", "7", "--num-workers", "3")
        assert sha256(folder / "a.h5ad") == sha256(folder / "b.h5ad"), "the number of workers shows in the file"
        synthesize(binary, folder / "b.h5ad", *small, "--seed", "8", "--force")
        assert sha256(folder / "a.h5ad") != sha256(folder / "b.h5ad"), "the seed does not show in the file"
        print("ok   the same bytes for the same seed, whatever the number of workers")

        synthesize(binary, folder / "s.h5ad", *small, "--gene-ids", "symbol", "--gzip-level", "0")
        check_contents(folder / "s.h5ad", 1100, 700, 5, 3, r"SYN\d{5}$", "gene_id")
        print("ok   symbols as index")

        synthesize(binary, folder / "l.h5ad", "--cells", "1200", "--genes", "30000", "--lengths", "cellxgene")
        data = check_contents(folder / "l.h5ad", 1200, 30000, 8, 4, r"ENSG\d{11}$", "gene_symbol")
        lengths = data.obs["n_genes"]
        # log2-normal(10.75, 1.25): median 2^10.75 = 1,722; one cell in 19 beyond 8,192 less the cut at 16,000.
        assert 1500 < lengths.median() < 2000, lengths.median()
        assert 11000 < lengths.max() < 18000 and lengths.min() > 100, (lengths.min(), lengths.max())
        assert 0.02 < (lengths > 8192).mean() < 0.07, (lengths > 8192).mean()
        print(f"ok   cells of {lengths.min()} to {lengths.max()} expressed genes, median {lengths.median():.0f}")


if __name__ == "__main__":
    main()
