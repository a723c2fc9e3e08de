"""Writes small .h5ad files with the anndata package: each layout, number type, storage and kind of column.

  make_h5ad_files.py FOLDER
"""

import sys
import warnings
from pathlib import Path

import anndata
import h5py
import numpy
import pandas
from scipy import sparse

CELLS, GENES = 203, 61
warnings.simplefilter("ignore")
anndata.settings.allow_write_nullable_strings = True


def counts(seed: int) -> numpy.ndarray:
    random = numpy.random.default_rng(seed)
    values = random.negative_binomial(1, 0.2, (CELLS, GENES)) * (random.random((CELLS, GENES)) < 0.3)
    values[5] = 0  # an empty cell
    values[:, 7] = 0  # a gene that nobody expresses
    return values.astype("int64")


def obs() -> pandas.DataFrame:
    random = numpy.random.default_rng(1)
    some = random.random(CELLS) < 0.1
    numbers = random.integers(-5, 100, CELLS)
    table = pandas.DataFrame(index=[f"cell-é{i}" for i in range(CELLS)])
    table["categorical"] = pandas.Categorical(random.choice(["T cell", "B cell", "NK, cell"], CELLS))
    table["categorical_missing"] = pandas.Categorical(numpy.where(some, None, random.choice(["a", "b"], CELLS)))
    table["categorical_many"] = pandas.Categorical([f"donor{i % 150}" for i in range(CELLS)])
    table["categorical_numbers"] = pandas.Categorical(numbers)
    table["categorical_fractions"] = pandas.Categorical(numbers / 4)
    table["categorical_flags"] = pandas.Categorical(some)
    table["ordered"] = pandas.Categorical(random.choice(["low", "high"], CELLS), ["low", "high"], ordered=True)
    table["text"] = [f"wort {i % 7} ü" for i in range(CELLS)]
    table["text_missing"] = pandas.array(numpy.where(some, None, "x"), dtype="string")
    for name in ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"]:
        table[name] = (numbers % 120).astype(name)
    table["float32"] = numpy.where(some, numpy.nan, random.random(CELLS)).astype("float32")
    table["float64"] = random.normal(size=CELLS) * 1e6
    table["bool"] = some
    table["nullable_integer"] = pandas.array(numpy.where(some, None, numbers), dtype="Int64")
    table["nullable_bool"] = pandas.array(numpy.where(some, None, numbers > 50), dtype="boolean")
    return table


def var() -> pandas.DataFrame:
    table = pandas.DataFrame(index=[f"ENSG{i:011d}.{i % 9}" for i in range(GENES)])
    table["symbol"] = [f"GENE{i}" for i in range(GENES)]
    table["biotype"] = pandas.Categorical(["coding", "lncRNA"][i % 2] for i in range(GENES))
    table["length"] = numpy.arange(GENES) * 17
    table["mean"] = numpy.arange(GENES) / 8
    return table


def write(folder: Path, name: str, matrix, storage: dict | None = None, **parts) -> None:
    data = anndata.AnnData(X=matrix, obs=parts.pop("obs", pandas.DataFrame(index=[str(i) for i in range(CELLS)])),
                           var=parts.pop("var", var()), **parts)
    data.write_h5ad(folder / f"{name}.h5ad", **(storage or {}))


def replace(path: Path, name: str, values, **storage) -> None:
    """Stores a data set again in another type or layout, with its attributes."""
    with h5py.File(path, "r+") as file:
        attributes = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, data=values, **storage).attrs.update(attributes)


def rewrite_sparse(path: Path, change) -> None:
    """Lets `change` edit data and indices of X in place."""
    with h5py.File(path, "r+") as file:
        arrays = {key: file["X"][key][()] for key in ["data", "indices", "indptr"]}
        arrays = change(arrays)
        for key, values in arrays.items():
            del file["X"][key]
            file["X"].create_dataset(key, data=values)


def reverse_rows(arrays: dict) -> dict:
    for begin, end in zip(arrays["indptr"][:-1], arrays["indptr"][1:]):
        for key in ["data", "indices"]:
            arrays[key][begin:end] = arrays[key][begin:end][::-1].copy()
    return arrays


def add_duplicates_and_zeros(arrays: dict) -> dict:
    """Splits the first entry of each cell into two, and adds an explicit zero."""
    data, indices, indptr = [], [], [0]
    for begin, end in zip(arrays["indptr"][:-1], arrays["indptr"][1:]):
        data += list(arrays["data"][begin:end]) + [3, 0]
        indices += list(arrays["indices"][begin:end]) + [int(arrays["indices"][begin]) if end > begin else 0, 60]
        indptr.append(len(data))
    kind = arrays["data"].dtype
    return {"data": numpy.array(data, kind), "indices": numpy.array(indices, "int32"), "indptr": numpy.array(indptr)}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    raw = counts(0)
    for layout, make in [("csr", sparse.csr_matrix), ("csc", sparse.csc_matrix), ("dense", numpy.asarray)]:
        for kind in ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
                     "float16", "float32", "float64", ">f4", ">i4"]:
            if layout != "dense" and (kind == "float16" or kind.startswith(">")):
                continue  # SciPy has no such sparse matrices
            label = kind.replace(">", "big_endian_")
            values = make(numpy.minimum(raw, 120).astype(kind.lstrip(">")))
            write(folder, f"{layout}_{label}", values)
            if kind.startswith(">"):
                replace(folder / f"{layout}_{label}.h5ad", "X", values.astype(kind))
        for compression in ["gzip", "lzf"]:
            write(folder, f"{layout}_{compression}", make(raw.astype("float32")), {"compression": compression})
        write(folder, f"{layout}_large_values", make((raw * 123456789).astype("int64")))
        write(folder, f"{layout}_normalised", make(numpy.log1p(raw / 3).astype("float32")))
    write(folder, "dense_chunked", raw.astype("float32"))
    replace(folder / "dense_chunked.h5ad", "X", raw.astype("float32"), chunks=(10, 7), compression="gzip", shuffle=True)
    write(folder, "csr_chunked", sparse.csr_matrix(raw.astype("float32")))
    replace(folder / "csr_chunked.h5ad", "X/data", sparse.csr_matrix(raw.astype("float32")).data, chunks=(101,),
            compression="gzip", shuffle=True, fletcher32=True)
    write(folder, "dense_bool", raw > 0)
    for name, change in [("csr_unsorted", reverse_rows), ("csr_duplicates_and_zeros", add_duplicates_and_zeros)]:
        write(folder, name, sparse.csr_matrix(raw.astype("float32")))
        rewrite_sparse(folder / f"{name}.h5ad", change)
    write(folder, "csr_int64_indices", sparse.csr_matrix(raw.astype("int32")))
    rewrite_sparse(folder / "csr_int64_indices.h5ad",
                   lambda arrays: {key: values.astype("int64") for key, values in arrays.items()})
    write(folder, "obs_columns", sparse.csr_matrix(raw.astype("float32")), obs=obs())
    write(folder, "obs_columns_gzip", sparse.csr_matrix(raw.astype("float32")), {"compression": "gzip"}, obs=obs())
    write(folder, "layers", None, layers={"counts": sparse.csr_matrix(raw), "scaled": raw - raw.mean(0),
                                          "by_gene": sparse.csc_matrix(raw / 2)})
    whole = anndata.AnnData(sparse.csr_matrix(raw.astype("float32")), var=var(),
                            obs=pandas.DataFrame(index=[str(i) for i in range(CELLS)]))
    part = whole[:, ::3].copy()
    part.X = part.X.log1p()
    part.raw = whole
    part.write_h5ad(folder / "raw.h5ad", compression="gzip")


if __name__ == "__main__":
    main()
