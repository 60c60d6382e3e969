# SPDX-License-Identifier: Apache-2.0
"""Does TensorBoard read of our event files what log.jsonl says? By hand.

    python3 tests/interop/tensorboard_reads_ours.py RUN/train

needs tensorboard. Every stage below RUN/train is loaded as the TensorBoard server does it;
each number of log.jsonl must be there once, at its step, within float32. Exit code 1
where one is missing, is there twice, or where there is more than the log tells.
"""
import json
import math
import sys
from pathlib import Path

import numpy
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util import tensor_util


def logged(path):
    """(tag, step) -> value of a stage's log."""
    points = {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        evaluation = any(key.startswith("eval_") for key in entry)
        for key, value in entry.items():
            if key == "step" or key.startswith("eval_") != evaluation:
                continue
            if isinstance(value, (bool, str)) or value is None:
                continue
            tag = "eval/" + key[5:] if key.startswith("eval_") else "train/" + key
            points[tag, entry["step"]] = value
    return points


def check(stage):
    """Number of points of a stage; problems are printed."""
    events = EventAccumulator(str(stage), size_guidance={"tensors": 0})
    events.Reload()
    want = logged(stage / "log.jsonl")
    got, problems = {}, 0
    for tag in events.Tags()["tensors"]:
        for event in events.Tensors(tag):
            value = float(tensor_util.make_ndarray(event.tensor_proto))
            if (tag, event.step) in got:
                print(f"{stage}: {tag} is there twice at step {event.step}")
                problems += 1
            got[tag, event.step] = value
    for key in sorted(want.keys() | got.keys()):
        a, b = want.get(key), got.get(key)
        if a is None or b is None or not math.isclose(numpy.float32(a), b, rel_tol=1e-6):
            print(f"{stage}: {key[0]} at step {key[1]}: logged {a}, TensorBoard has {b}")
            problems += 1
    return len(got), problems


def main():
    stages = sorted({p.parent for p in Path(sys.argv[1]).rglob("events.out.tfevents.*")})
    n_points = n_problems = 0
    for stage in stages:
        n, problems = check(stage)
        files = len(list(stage.glob("events.out.tfevents.*")))
        print(f"{stage.name}: {n} points in {files} files")
        n_points += n
        n_problems += problems
    if n_problems or not n_points:
        sys.exit(f"{n_problems} problems in {n_points} points")
    print(f"all {n_points} points of {len(stages)} stages are as logged")


if __name__ == "__main__":
    main()
