"""Counts the cells that `scrna-train inspect --filter` chooses and compares with pandas.

  compare_filter.py SCRNA_TRAIN OBS_COLUMNS.h5ad        the file of tests/oracle/make_h5ad_files.py

Exit code 1 when a number differs.
"""

import json
import subprocess
import sys
import warnings

import anndata
import numpy

warnings.simplefilter("ignore")


def cases(obs) -> list:
    """Expressions, and what pandas says of each cell; a missing value of a nullable column equals nothing."""
    numbers = obs["categorical_numbers"].astype(float)
    return [
        ("categorical == 'T cell'", obs["categorical"] == "T cell"),
        ("categorical_missing != 'a'", obs["categorical_missing"] != "a"),
        ("categorical_missing not in ['a']", ~obs["categorical_missing"].isin(["a"])),
        ("categorical_many in ['donor3', \"donor77\"]", obs["categorical_many"].isin(["donor3", "donor77"])),
        ("categorical_numbers > 50", numbers > 50),
        ("50 > categorical_numbers", numbers < 50),
        ("categorical_fractions <= 3.25", obs["categorical_fractions"].astype(float) <= 3.25),
        ("categorical_flags", obs["categorical_flags"].astype(bool)),
        ("not bool", ~obs["bool"]),
        ("bool == true and int8 > 60", obs["bool"] & (obs["int8"] > 60)),
        ("float32 < 0.5", obs["float32"] < 0.5),
        ("float32 != 0.5", obs["float32"] != 0.5),
        ("float64 >= -1e5 or uint8 == 3", (obs["float64"] >= -1e5) | (obs["uint8"] == 3)),
        ("nullable_integer > 20", (obs["nullable_integer"] > 20).fillna(False)),
        ("nullable_bool == true", obs["nullable_bool"].fillna(False)),
        ("nullable_bool != true", ~obs["nullable_bool"].fillna(False)),
        ("text in ['wort 3 ü'] or text_missing == 'x' and int64 < 0",
         (obs["text"] == "wort 3 ü") | ((obs["text_missing"] == "x").fillna(False) & (obs["int64"] < 0))),
    ]


def main() -> None:
    program, path = sys.argv[1:]
    num_failed = 0
    for expression, mask in cases(anndata.read_h5ad(path).obs):
        run = subprocess.run([program, "inspect", "--json", path, "--filter", expression], capture_output=True, text=True,
                             check=False)
        ours = json.loads(run.stdout)["chosen_cells"] if run.returncode == 0 else run.stderr.strip()
        theirs = int(numpy.asarray(mask).astype(bool).sum())
        num_failed += ours != theirs
        print(f"{'ok  ' if ours == theirs else 'FAIL'} {expression}: {ours}, pandas {theirs}")
    sys.exit(1 if num_failed else 0)


if __name__ == "__main__":
    main()
