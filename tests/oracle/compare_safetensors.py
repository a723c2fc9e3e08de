"""Files of Python's safetensors package are read by lib/checkpoint, and files of lib/checkpoint by the package: the
same names, types, shapes, bytes and metadata.

  compare_safetensors.py --copy BINARY
"""

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

# The types that both numpy and lib/checkpoint know.
TYPES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]


def tensors() -> dict:
    random = numpy.random.default_rng(0)
    result = {f"layer.{i}.{kind}": (random.normal(size=(3, 1 + i)) * 50).astype(kind) for i, kind in enumerate(TYPES)}
    result["scalar"] = numpy.array(2.5, "float32")
    result["empty"] = numpy.zeros((0, 7), "float32")
    result["name with é and \"quotes\""] = numpy.arange(5)
    result["large"] = random.normal(size=(1000, 999)).astype("float32")
    result["special"] = numpy.array([numpy.nan, numpy.inf, -numpy.inf, -0.0, 1e-45], "float32")
    return result


def header_of(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]])


def copy(binary: str, source: Path, target: Path) -> None:
    subprocess.run([binary, source, target], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copy", required=True)
    binary = parser.parse_args().copy
    with tempfile.TemporaryDirectory() as name:
        theirs, ours, bfloat = Path(name) / "theirs", Path(name) / "ours", Path(name) / "bfloat"
        expected, metadata = tensors(), {"format": "pt", "note": "ü \"x\"\n"}
        save_file(expected, theirs, metadata)
        copy(binary, theirs, ours)
        read = load_file(ours)
        failures = [f"names: {sorted(read)}"] if sorted(read) != sorted(expected) else []
        for key, value in expected.items():
            other = read.get(key)
            if other is None or other.dtype != value.dtype or other.shape != value.shape or other.tobytes() != value.tobytes():
                failures.append(f"{key} differs")
        with safe_open(ours, "numpy") as file:
            if file.metadata() != metadata:
                failures.append(f"metadata {file.metadata()}")
        header = b'{"b":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}'
        bfloat.write_bytes(struct.pack("<Q", len(header)) + header + bytes(range(8)))
        copy(binary, bfloat, ours)
        if header_of(ours)["b"] != json.loads(header)["b"] or ours.read_bytes()[-8:] != bytes(range(8)):
            failures.append("bfloat16 differs")
    print("\n".join(failures) or f"{len(expected) + 1} tensors: equal in both directions")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
