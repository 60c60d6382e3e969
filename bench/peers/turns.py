#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""All programs in turns, round after round, each a fresh process on the same CPUs.

A ratio is the median over the rounds of artel's rate over the other's in that round, so
that a machine which slows down for a while slows both. run.sh says which variables of
the environment are read; --table FILE prints the table of a file of results again.
"""
import argparse
import csv
import datetime
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS = ["date", "cpu", "work", "program", "settings", "round", "tokens_per_second",
           "peak_rss_mib"]
WORKS = ["W", "P256", "P1000", "D1"]

# glibc gives large blocks back at once, and every step pays for fresh pages again.
TUNED = {"GLIBC_TUNABLES": ":".join([
    "glibc.malloc.hugetlb=1", "glibc.malloc.mmap_threshold=17179869184",
    "glibc.malloc.trim_threshold=17179869184", "glibc.malloc.mmap_max=0"])}


def cpu_flags():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    found = re.search(r"^flags\s*:(.*)$", text, re.M)
    return set(found.group(1).split()) if found else set()


def cpu_name():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.M)
    return found.group(1).strip() if found else "unknown"


class Contestant:
    def __init__(self, program, settings, command, env=None):
        self.program, self.settings, self.command = program, settings, command
        self.env = env or {}


def contestants(work, cpus, steps):
    env, threads = os.environ, str(len(cpus))
    flags = cpu_flags()
    python = sys.executable
    layers = env.get("LAYERS")
    places = {"OMP_PROC_BIND": "true",
              "OMP_PLACES": ",".join("{%d}" % c for c in cpus)}

    def artel(precision):
        command = [env["ARTEL"], "bench", work, "--precision", precision, "--repeat",
                   str(steps), "--threads", threads, "--json", "-"]
        model = env.get("W_MODEL") if work == "W" else env["MODEL"]
        return Contestant("artel", precision, command + (["--model", model] if model else []))

    def torch(settings, *words, tuned=False):
        command = [python, str(HERE / "train_peft.py"), work, "--steps", str(steps),
                   "--threads", threads, *words]
        if layers:
            command += ["--layers", layers]
        return Contestant("transformers+peft", settings, command,
                          {**places, **(TUNED if tuned else {})})

    out = [artel("fp32")]
    if "amx_bf16" in flags:
        out.append(artel("bf16"))
    if work in ("W", "P256"):
        out += [torch("fp32, as installed"), torch("fp32, tuned malloc", tuned=True)]
        if flags & {"amx_bf16", "avx512_bf16"}:
            out += [torch("bf16, as installed", "--bf16"),
                    torch("bf16, tuned malloc", "--bf16", tuned=True),
                    torch("bf16, tuned malloc, compiled", "--bf16", "--compile",
                          tuned=True)]
    if work != "W":
        command = [python, str(HERE / "run_llama.py"), work, "--model", env["MODEL"],
                   "--steps", str(steps), "--threads", threads]
        out.append(Contestant("llama.cpp", "default", command, places))
    only = [text for text in env.get("ONLY", "").split(",") if text]
    return [c for c in out if not only or
            any(text in f"{c.program} {c.settings}" for text in only)]


def measure(contestant, cpus):
    """(tokens a second, peak MiB), or None where it failed."""
    done = subprocess.run(contestant.command, env={**os.environ, **contestant.env},
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    text = done.stdout[done.stdout.find("{"):]
    if done.returncode != 0 or not text:
        print(f"failed ({done.returncode}): {' '.join(contestant.command)}\n"
              f"{done.stderr[-2000:]}", file=sys.stderr)
        return None
    result = json.loads(text)
    result = result["results"][0] if "results" in result else result
    return result["tokens_per_second"], result["peak_rss_mib"]


def run(works, path, cpus, rounds, steps):
    fresh = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as f:
        out = csv.writer(f)
        if fresh:
            out.writerow(COLUMNS)
        for work in works:
            for number in range(1, rounds + 1):
                for c in contestants(work, cpus, steps):
                    print(f"{work}, round {number} of {rounds}: {c.program}, "
                          f"{c.settings}", end="", file=sys.stderr, flush=True)
                    got = measure(c, cpus)
                    if not got:
                        continue
                    print(f": {got[0]:.1f} tokens/s", file=sys.stderr)
                    out.writerow([datetime.datetime.now().isoformat(timespec="seconds"),
                                  cpu_name(), work, c.program, c.settings, number,
                                  f"{got[0]:.2f}", f"{got[1]:.0f}"])
                    f.flush()


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def table(path):
    with path.open(newline="") as f:
        rows = list(csv.DictReader(f))
    rates, peaks = {}, {}
    for row in rows:
        key = row["work"], row["program"], row["settings"]
        # Of a round that was measured again the last measurement counts.
        rates.setdefault(key, {})[row["round"]] = float(row["tokens_per_second"])
        peaks.setdefault(key, {})[row["round"]] = float(row["peak_rss_mib"])
    lines = ["| work | program | tokens/s (slowest to fastest) | peak MiB | artel fp32 is "
             "| artel bf16 is |", "|---|---|---:|---:|---:|---:|"]
    for work in [w for w in WORKS if any(key[0] == w for key in rates)]:
        for key in [key for key in rates if key[0] == work]:
            all_rates = list(rates[key].values())
            cells = [work, f"{key[1]}, {key[2]}",
                     f"{number(statistics.median(all_rates))} ({number(min(all_rates))} "
                     f"to {number(max(all_rates))})",
                     number(max(peaks[key].values()))]
            for precision in ("fp32", "bf16"):
                ours = rates.get((work, "artel", precision), {})
                both = [ours[r] / rates[key][r] for r in rates[key] if r in ours]
                cells.append(f"{statistics.median(both):.2f} x"
                             if both and key[1] != "artel" else "")
            lines.append("| " + " | ".join(cells) + " |")
    cpus = sorted({row["cpu"] for row in rows})
    return "\n".join([f"{', '.join(cpus)}; {path.name}", "", *lines])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("works", nargs="*", metavar="WORK")
    parser.add_argument("--results", type=pathlib.Path, default=HERE.parent / "results")
    parser.add_argument("--table", type=pathlib.Path)
    args = parser.parse_args()
    if args.table:
        print(table(args.table))
        return
    for work in args.works:
        if work not in WORKS:
            parser.error(f"works are {' '.join(WORKS)}")
    env = os.environ
    cpus = sorted(int(c) for c in env["CPUS"].split(",")) if env.get("CPUS") \
        else sorted(os.sched_getaffinity(0))
    name = re.sub(r"[^a-z0-9]+", "-", cpu_name().lower()).strip("-")
    name = f"{datetime.datetime.now():%Y-%m-%d-%H%M}-{name}.csv"
    path = args.results / name
    run(args.works or WORKS, path, cpus, int(env.get("ROUNDS", "5")),
        int(env.get("STEPS", "5")))
    if not path.exists() or len(path.read_text().splitlines()) < 2:
        raise SystemExit("nothing was measured")
    print(table(path))


if __name__ == "__main__":
    main()
