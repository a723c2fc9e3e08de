"""What `scrna-train finetune` and `annotate` write, with scikit-learn, anndata and scanpy: scores of the held-out cells, classes
and probabilities in obs and obsm, everything else of the input as it was; also in files of older AnnData encodings.

  compare_finetune.py SCRNA_TRAIN
"""
import json
import sys
import tempfile
from pathlib import Path

import anndata
import h5py
import numpy
import pandas
import scanpy
from scipy import sparse
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

from small_model import run, write_config


def datasets(path):
    found = {}
    with h5py.File(path) as file:
        def visit(name, item):
            if isinstance(item, h5py.Dataset):
                value = item[()]
                found[name] = (str(item.dtype), value.tolist() if h5py.check_string_dtype(item.dtype) is not None and
                               item.shape != () else value if item.shape == () else value.tobytes())
        file.visititems(visit)
    return found


def check_scores(folder):
    table = pandas.read_csv(folder / "heldout_predictions.csv", keep_default_na=False)
    result = json.loads((folder / "finetune.json").read_text())
    scores, classes = result["heldout"], result["classes"]
    assert len(table) == scores["cells"] == result["cells"]["heldout"]
    truth, said = table["label"], table["predicted"]
    assert abs(scores["accuracy"] - accuracy_score(truth, said)) < 1e-12
    assert abs(scores["macro_f1"] - f1_score(truth, said, average="macro", zero_division=0)) < 1e-12
    assert abs(scores["weighted_f1"] - f1_score(truth, said, average="weighted", zero_division=0)) < 1e-12
    assert numpy.array_equal(scores["confusion"], confusion_matrix(truth, said, labels=classes))
    expected = precision_recall_fscore_support(truth, said, labels=classes, zero_division=0)
    found = numpy.array([[entry[key] for entry in scores["classes"]] for key in ("precision", "recall", "f1", "cells")])
    assert numpy.allclose(found, numpy.array(expected), rtol=0, atol=1e-12)
    per_class = pandas.read_csv(folder / "per_class.csv", keep_default_na=False)
    assert per_class["class"].tolist() == classes and numpy.allclose(per_class["f1"], expected[2], atol=1e-8)
    assert numpy.array_equal(pandas.read_csv(folder / "confusion.csv", index_col=0, keep_default_na=False).values, scores["confusion"])
    return table, scores


def check_annotated(before_path, after_path, table, classes, heldout_name):
    before, after = datasets(before_path), datasets(after_path)
    for name, value in before.items():
        assert after[name] == value, f"{name} is not what it was"
    data = anndata.read_h5ad(after_path)
    column = data.obs["scrna_cell_type"]
    assert isinstance(column.dtype, pandas.CategoricalDtype) and list(column.cat.categories) == classes
    p = data.obsm["scrna_cell_type_probabilities"]
    assert p.shape == (data.n_obs, len(classes)) and p.dtype == "float32"
    seen = ~numpy.isnan(p).any(axis=1)
    assert numpy.array_equal(seen, column.notna())
    assert numpy.allclose(p[seen].sum(1), 1, atol=1e-5)
    assert numpy.array_equal(numpy.array(classes)[p[seen].argmax(1)], column[seen].to_numpy())
    assert numpy.array_equal(data.obs["scrna_cell_type_probability"].to_numpy()[seen], p[seen].max(1))
    assert list(data.uns["scrna_cell_type"]["classes"]) == classes
    if heldout_name:
        rows = table[table["file"] == str(heldout_name)].set_index("cell")
        assert numpy.array_equal(column[rows.index].astype(str), rows["predicted"])
        assert numpy.allclose(data.obs["scrna_cell_type_probability"][rows.index], rows["probability"], atol=1e-4)
    return data


def older(path, out):
    """The same cells as AnnData 0.7 wrote them: codes in obs, categories apart."""
    data = anndata.read_h5ad(path)
    with h5py.File(path) as source, h5py.File(out, "w") as file:
        for name in source:
            if name != "obs":
                source.copy(name, file)
        obs = file.create_group("obs")
        for key, value in source["obs"].attrs.items():
            obs.attrs[key] = value
        obs.attrs["encoding-version"] = "0.1.0"
        for column in data.obs:
            values = data.obs[column]
            if isinstance(values.dtype, pandas.CategoricalDtype):
                categories = obs.require_group("__categories").create_dataset(column, data=values.cat.categories.to_list(),
                                                                              dtype=h5py.string_dtype())
                obs.create_dataset(column, data=values.cat.codes.to_numpy()).attrs["categories"] = categories.ref
            else:
                source["obs"].copy(column, obs)
        source["obs"].copy("_index", obs)


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cells = folder / "cells.h5ad"
        run(program, "synthesize", "--out", cells, "--cells", "500", "--genes", "200", "--median-genes", "50", "--programs", "5")
        data = anndata.read_h5ad(cells)
        # Names that need quoting, cells without a label, empty cells.
        kinds = data.obs["cell_type"].cat.categories
        data.obs["cell_type"] = data.obs["cell_type"].cat.rename_categories({kinds[0]: 'T, "naïve"', kinds[1]: "NK/β"})
        data.obs.loc[data.obs_names[:20], "cell_type"] = None
        keep = numpy.ones(data.n_obs, "float32")
        keep[40:43] = 0
        data.X = sparse.csr_matrix(sparse.diags(keep) @ data.X).astype("float32")
        data.X.eliminate_zeros()
        data.write_h5ad(folder / "labelled.h5ad")
        config = folder / "config.yaml"
        write_config(config, cells, width=32)
        run(program, "train", "--config", config, "--set", f"run.dir={folder / 'run'}")
        for mode in ("frozen", "full"):
            out = folder / mode
            flags = ["--frozen"] if mode == "frozen" else ["--epochs", "2", "--head-learning-rate", "0.01"]
            run(program, "finetune", "--checkpoint", folder / "run", "--device", "cpu", "--label", "cell_type", *flags,
                "--out", out, folder / "labelled.h5ad")
            table, scores = check_scores(out)
            left_out = json.loads((out / "finetune.json").read_text())["cells"]["left_out"]
            assert left_out["without_label"] == 20 and left_out["without_genes"] == 3, left_out
            print(f"ok   {mode}: scores are scikit-learn's (accuracy {scores['accuracy']:.3f}, macro F1 {scores['macro_f1']:.3f})")
            classes = [entry["name"] for entry in scores["classes"]]
            run(program, "annotate", "--checkpoint", out, "--device", "cpu", "--out", folder / f"{mode}.h5ad", folder / "labelled.h5ad")
            annotated = check_annotated(folder / "labelled.h5ad", folder / f"{mode}.h5ad", table, classes, folder / "labelled.h5ad")
            print(f"ok   {mode}: anndata reads classes, probabilities and everything else of the input")
        with_class = annotated[annotated.obs["scrna_cell_type"].notna()].copy()
        scanpy.pp.neighbors(with_class, n_neighbors=10, use_rep="scrna_cell_type_probabilities", random_state=0)
        scanpy.pp.log1p(with_class)
        sizes = with_class.obs["scrna_cell_type"].value_counts()
        scanpy.tl.rank_genes_groups(with_class, "scrna_cell_type", groups=sizes.index[sizes > 1].to_list())
        annotated.write_h5ad(folder / "again.h5ad")
        again = anndata.read_h5ad(folder / "again.h5ad")
        assert again.obs["scrna_cell_type"].equals(annotated.obs["scrna_cell_type"])
        print("ok   scanpy groups by the classes, anndata writes the file again")

        older(cells, folder / "older.h5ad")
        assert anndata.read_h5ad(folder / "older.h5ad").obs["cell_type"].equals(anndata.read_h5ad(cells).obs["cell_type"])
        run(program, "annotate", "--checkpoint", folder / "frozen", "--device", "cpu", "--out", folder / "older-out.h5ad", folder / "older.h5ad")
        check_annotated(folder / "older.h5ad", folder / "older-out.h5ad", table, classes, None)
        bare = anndata.AnnData(data.X[:50], pandas.DataFrame(index=data.obs_names[:50]), data.var)
        bare.write_h5ad(folder / "bare.h5ad")
        run(program, "annotate", "--checkpoint", folder / "frozen", "--device", "cpu", "--out", folder / "bare-out.h5ad", folder / "bare.h5ad")
        check_annotated(folder / "bare.h5ad", folder / "bare-out.h5ad", table, classes, None)
        print("ok   files of AnnData 0.7, and with no column at all")


if __name__ == "__main__":
    main()
