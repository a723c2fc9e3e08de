#!/usr/bin/env python3
"""Reads the event files of a run with the tensorboard package and compares every scalar with metrics.jsonl.

compare_tensorboard.py PROGRAM: makes a run, stops and resumes it, so that there are two event files of which the second voids a
part of the first."""
import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def run(*words):
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


def fp32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def scalars_of(metrics):
    """(tag, step) -> value; those by layer of monitored steps only."""
    expected = {}
    for text in metrics.read_text().splitlines():
        line = json.loads(text)
        for key, value in line.items():
            if key == "step" or value is None or isinstance(value, bool):
                continue
            if isinstance(value, dict):
                if "weight_norm_per_layer" in line:
                    expected.update({(f"{key}/{layer}", line["step"]): number for layer, number in value.items() if number is not None})
            else:
                expected[(key, line["step"])] = value
    return expected


def main():
    program = sys.argv[1]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        cells, directory = folder / "cells.h5ad", folder / "run"
        run(program, "synthesize", "--out", cells, "--cells", 60, "--genes", 50, "--median-genes", 20, "--programs", 4)
        settings = [f"data.files={cells}", f"run.dir={directory}", "data.min_genes=5", "data.heldout_fraction=0.2", "tokenizer.max_tokens=16", "model.num_layers=2",
                    "model.width=16", "model.num_heads=2", "model.feed_forward_width=32", "optim.warmup_steps=1", "train.steps=20", "train.global_batch_cells=8",
                    "train.device=cpu", "train.num_threads=1", "heldout.every_steps=5", "checkpoint.every_steps=10", "monitor.every_steps=5"]
        flags = [word for setting in settings for word in ("--set", setting)]
        run(program, "train", *flags)
        run(program, "train", *flags, "--resume", directory / "checkpoints" / "step-00000010")
        reader = EventAccumulator(str(directory / "tensorboard"), size_guidance={"scalars": 0}, purge_orphaned_data=True)
        reader.Reload()
        found = {(tag, event.step): event.value for tag in reader.Tags()["scalars"] for event in reader.Scalars(tag)}
        expected = scalars_of(directory / "metrics.jsonl")
        files = len(list((directory / "tensorboard").iterdir()))
    problems = [f"{key}: only in metrics.jsonl" for key in expected.keys() - found.keys()]
    problems += [f"{key}: only in the events" for key in found.keys() - expected.keys()]
    problems += [f"{key}: {found[key]} instead of {fp32(value)}" for key, value in expected.items()
                 if key in found and not math.isclose(found[key], fp32(value), rel_tol=0, abs_tol=0)]
    for problem in problems[:20]:
        print(problem)
    print(f"{len(expected)} scalars in {files} event files, {len(problems)} problems")
    return 1 if problems or files != 2 or len(expected) < 300 else 0


if __name__ == "__main__":
    sys.exit(main())
