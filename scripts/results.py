#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""results.py FOLDER DOC: writes the tables of a results folder into DOC.

The document marks the place of each table by a line <!-- table NAME --> and its end
by <!-- end -->; what stands between them is replaced, the prose stays.
"""
import json
import math
import os
import sys

folder, doc = sys.argv[1:3]


def load(name):
    path = os.path.join(folder, name + ".json")
    return json.load(open(path)) if os.path.exists(path) else None


def methods():
    """Every measured method under the name of its column."""
    found = {}
    for column, file in [("moa", "moa"), ("mixed", "mixed"), ("single", "single"),
                         ("single, two epochs", "twice"),
                         ("moa router_only", "router-only"),
                         ("router_only, pool last", "router-last"),
                         ("single, seed 2", "single-2"), ("moa, seed 2", "moa-2")]:
        for m in (load(file) or {"methods": []})["methods"]:
            found["base" if m["name"] == "base" else column] = m
    order = ["base", "mixed", "single", "single, two epochs", "moa router_only", "moa",
             "router_only, pool last", "single, seed 2", "moa, seed 2"]
    return {k: found[k] for k in order if k in found}


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows])


def perplexity(all_methods):
    shown = {k: m for k, m in all_methods.items() if "pool" not in k and "seed" not in k}
    names = list(next(iter(shown.values()))["domains"])
    rows = []
    for d in names:
        n = next(iter(shown.values()))["domains"][d]
        rows.append([f"{d} ({n['rows']} rows)"] +
                    [f"{m['domains'][d]['perplexity']:.4f}" for m in shown.values()])
    rows.append(["geometric mean"] +
                [f"{math.exp(sum(math.log(m['domains'][d]['perplexity']) for d in names) / len(names)):.4f}"
                 for m in shown.values()])
    rows.append(["arithmetic mean"] +
                [f"{sum(m['domains'][d]['perplexity'] for d in names) / len(names):.4f}"
                 for m in shown.values()])
    rows.append(["trained parameters"] +
                [f"{m['trainable_parameters'] / 1e6:.2f} M" if m.get("trainable_parameters")
                 else "–" for m in shown.values()])
    rows.append(["tokens trained on"] +
                [f"{m['tokens'] / 1e3:.0f} k" if m.get("tokens") else "–"
                 for m in shown.values()])
    return table(["domain"] + list(shown), rows)


def seeds(all_methods):
    names = list(all_methods["moa"]["domains"])
    pairs = [(s, m) for s, m in [("single", "moa"), ("single, seed 2", "moa, seed 2")]
             if m in all_methods]
    rows = []
    for d in names:
        row = [d]
        for s, m in pairs:
            one, mix = (all_methods[k]["domains"][d]["perplexity"] for k in (s, m))
            row += [f"{one:.4f}", f"{mix:.4f}", f"{100 * (mix / one - 1):+.1f} %"]
        rows.append(row)
    return table(["domain"] + [c for i in range(len(pairs))
                               for c in (f"single, seed {i + 1}", f"moa, seed {i + 1}", "change")],
                 rows)


def routing(all_methods):
    routed = {k: m for k, m in all_methods.items()
              if m.get("routing_accuracy") is not None and "moa" in k or "router" in k}
    names = list(next(iter(routed.values()))["domains"])
    rows = [[d] + [f"{100 * m['domains'][d]['routing_accuracy']:.2f} %" for m in routed.values()]
            for d in names]
    rows.append(["all rows"] + [f"{100 * m['routing_accuracy']:.2f} %" for m in routed.values()])
    return table(["domain"] + list(routed), rows)


def confusion(all_methods, method="moa"):
    c = all_methods[method]["confusion"]
    return table(["rows of \\ routed to"] + list(c),
                 [[d] + [str(n) for n in row.values()] for d, row in c.items()])


def added():
    a = load("add")
    cost, anew = a["cost"], a["everything_anew"]
    rows = [[k, f"{cost[k]:,.0f}", f"{anew[k]:,.0f}", f"{100 * cost[k] / anew[k]:.1f} %"]
            for k in ("parameters", "tokens", "steps", "seconds") if anew.get(k)]
    return table(["", "adding strategyqa", "all nine anew", "share"], rows)


def added_domains():
    rows = []
    for d in load("add")["domains"]:
        rows.append([d["name"], "unchanged" if d["unchanged"] else "CHANGED",
                     f"{d['perplexity_before']:.4f}", f"{d['perplexity_after']:.4f}",
                     f"{100 * d['routing_before']:.2f} %", f"{100 * d['routing_after']:.2f} %"])
    return table(["domain", "expert's file", "perplexity before", "after",
                  "routed right before", "after"], rows)


def main():
    all_methods = methods()
    made = {"perplexity": lambda: perplexity(all_methods),
            "routing": lambda: routing(all_methods),
            "seeds": lambda: seeds(all_methods),
            "confusion": lambda: confusion(all_methods),
            "confusion-router-only": lambda: confusion(all_methods, "moa router_only"),
            "added": added, "added-domains": added_domains}
    text, at, out = open(doc).read().split("\n"), 0, []
    while at < len(text):
        out.append(text[at])
        if text[at].startswith("<!-- table "):
            name = text[at].split()[2]
            needs_add = name.startswith("added")
            out += ["", made[name]() if not needs_add or load("add") else "Not measured.", ""]
            while text[at] != "<!-- end -->":
                at += 1
            out.append(text[at])
        at += 1
    open(doc, "w").write("\n".join(out))


main()
