"""Writes small .h5ad files with the anndata package: each layout, number type, storage and kind of column; and with h5py
what anndata no longer writes (encodings before 0.8, user blocks, 10x .h5).

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


def texts(group: h5py.Group, name: str, values) -> h5py.Dataset:
    return group.create_dataset(name, data=numpy.array(values, object), dtype=h5py.string_dtype())


def old_sparse(group: h5py.Group, name: str, matrix, layout: str) -> None:
    """As the h5sparse package wrote it before AnnData 0.7."""
    part = group.create_group(name)
    part.attrs["h5sparse_format"] = layout
    part.attrs["h5sparse_shape"] = numpy.array(matrix.shape)
    for key in ["data", "indices", "indptr"]:
        part.create_dataset(key, data=getattr(matrix, key), compression="lzf", shuffle=True, fletcher32=key == "data")


def write_records(folder: Path, name: str, matrix, layout: str, text) -> None:
    """AnnData before 0.7: obs and var are records, categories lie in uns, one of them alone; raw.X and raw.var."""
    random = numpy.random.default_rng(3)
    with h5py.File(folder / f"{name}.h5ad", "w", userblock_size=512 if layout == "csc" else 0) as file:
        old_sparse(file, "X", matrix.astype("float32"), layout)
        old_sparse(file, "raw.X", sparse.csr_matrix(matrix), "csr")
        kinds = [("index", text), ("cell_type", "i1"), ("sex", "i1"), ("n_genes", "i8"), ("score", "f4"), ("good", "?"),
                 ("batch", text)]
        obs = numpy.zeros(CELLS, kinds)
        obs["index"] = [f"c{i}".encode() for i in range(CELLS)]
        obs["cell_type"] = random.integers(-1, 3, CELLS)
        obs["sex"] = random.integers(-1, 1, CELLS)
        obs["n_genes"] = random.integers(0, 5000, CELLS)
        obs["score"] = random.normal(size=CELLS)
        obs["good"] = random.random(CELLS) < 0.5
        obs["batch"] = [f"b{i % 3}".encode() for i in range(CELLS)]
        file.create_dataset("obs", data=obs)
        genes = numpy.zeros(GENES, [("index", text), ("biotype", "i1")])
        genes["index"] = [f"GENE{i}".encode() for i in range(GENES)]
        genes["biotype"] = random.integers(0, 2, GENES)
        file.create_dataset("var", data=genes)
        file.create_dataset("raw.var", data=numpy.array([(name,) for name in genes["index"]], [("index", text)]))
        texts(file.create_group("uns"), "cell_type_categories", ["T", "B", "NK cell"])
        texts(file["uns"], "biotype_categories", ["coding", "lncRNA"])
        file["uns"].create_dataset("sex_categories", data="female", dtype=h5py.string_dtype())


def write_07(folder: Path) -> None:
    """AnnData 0.7: tables are groups, categories are shared in __categories and referred to."""
    random = numpy.random.default_rng(4)
    with h5py.File(folder / "old_07.h5ad", "w", libver=("v110", "v110")) as file:
        file.create_dataset("X", data=counts(5).astype("float32"), chunks=(50, 61), compression="gzip", fletcher32=True)
        for name, size in [("obs", CELLS), ("var", GENES)]:
            table = file.create_group(name)
            table.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.1.0", "_index": "index"})
            table.attrs.create("column-order", ["kind", "label", "size"], dtype=h5py.string_dtype())
            table.create_dataset("index", data=numpy.array([f"{name}-{i}" for i in range(size)], "S8"))
            codes = table.create_dataset("kind", data=random.integers(-1, 3, size).astype("int8"))
            categories = texts(table, "__categories/kind", ["a", "b", "ü"])
            categories.attrs["ordered"] = False
            codes.attrs["categories"] = categories.ref
            texts(table, "label", [f"l{i % 4}" for i in range(size)])
            table.create_dataset("size", data=random.random(size))


def write_strange_types(folder: Path) -> None:
    """Valid, but as no usual writer does it."""
    raw = sparse.csr_matrix(counts(6).astype("int32"))
    write(folder, "strange_types", raw, obs=obs())
    with h5py.File(folder / "strange_types.h5ad", "r+") as file:
        for key, kind in [("indices", "int64"), ("indptr", "uint32"), ("data", "uint16")]:
            values = file["X"][key][()].astype(kind)
            del file["X"][key]
            file["X"].create_dataset(key, data=values, chunks=(37,), compression="lzf", shuffle=True)
        flag = h5py.enum_dtype({"FALSE": 0, "TRUE": 1, "NA": 2}, basetype="i2")
        file["obs"].create_dataset("r_flag", data=numpy.arange(CELLS) % 3, dtype=flag)
        order = [*file["obs"].attrs["column-order"], "r_flag"]
        file["obs"].attrs.create("column-order", order, dtype=h5py.string_dtype())
        del file["obs/nullable_integer/mask"]
        file["obs/nullable_integer"].create_dataset("mask", data=numpy.zeros(CELLS, bool))


def write_strings_of_pandas(folder: Path) -> None:
    """The string types of pandas: the index, a column, categories."""
    table = pandas.DataFrame(index=pandas.array([f"c{i}" for i in range(CELLS)], dtype="string"))
    table["text"] = pandas.array([None if i % 9 == 0 else f"t{i % 4}" for i in range(CELLS)], dtype="string")
    table["categories"] = pandas.Categorical(pandas.array([f"k{i % 5}" for i in range(CELLS)], dtype="string"))
    write(folder, "pandas_strings", sparse.csr_matrix(counts(7)), obs=table)


def write_tenx(folder: Path) -> None:
    raw = sparse.csr_matrix(counts(8).astype("int32"))
    barcodes = numpy.array([f"AAAC{i:04d}-1" for i in range(CELLS)], "S18")

    def matrix(group: h5py.Group) -> None:
        group.create_dataset("barcodes", data=barcodes, compression="gzip")
        group.create_dataset("data", data=raw.data, compression="gzip", shuffle=True)
        group.create_dataset("indices", data=raw.indices.astype("int64"), compression="gzip")
        group.create_dataset("indptr", data=raw.indptr.astype("int64"))
        group.create_dataset("shape", data=numpy.array(raw.shape[::-1], "int32"))

    names = numpy.array([f"GENE{i}" for i in range(GENES)], "S16")
    ids = numpy.array([f"ENSG{i:011d}" for i in range(GENES)], "S20")
    for name, genomes in [("10x_v2", ["hg19"]), ("10x_v2_two_genomes", ["hg19", "mm10"])]:
        with h5py.File(folder / f"{name}.h5", "w") as file:
            for genome in genomes:
                matrix(file.create_group(genome))
                file[genome].create_dataset("gene_names", data=names)
                file[genome].create_dataset("genes", data=ids)
    for name, antibodies in [("10x_v3", 0), ("10x_v3_antibodies", 5)]:
        with h5py.File(folder / f"{name}.h5", "w") as file:
            matrix(file.create_group("matrix"))
            features = file.create_group("matrix/features")
            types = [b"Gene Expression"] * (GENES - antibodies) + [b"Antibody Capture"] * antibodies
            features.create_dataset("id", data=ids)
            features.create_dataset("name", data=names)
            features.create_dataset("feature_type", data=numpy.array(types))
            features.create_dataset("genome", data=numpy.array([[b"GRCh38", b"mm10"][i % 2] for i in range(GENES)]))
            features.create_dataset("_all_tag_keys", data=numpy.array([b"genome"]))


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
    write_records(folder, "old_records_csr", sparse.csr_matrix(counts(2)), "csr", "S12")
    write_records(folder, "old_records_csc_userblock", sparse.csc_matrix(counts(2)), "csc", h5py.string_dtype())
    write_07(folder)
    write_strange_types(folder)
    write_strings_of_pandas(folder)
    write_tenx(folder)
    whole = anndata.AnnData(sparse.csr_matrix(raw.astype("float32")), var=var(),
                            obs=pandas.DataFrame(index=[str(i) for i in range(CELLS)]))
    part = whole[:, ::3].copy()
    part.X = part.X.log1p()
    part.raw = whole
    part.write_h5ad(folder / "raw.h5ad", compression="gzip")


if __name__ == "__main__":
    main()
