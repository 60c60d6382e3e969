#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""results.py FOLDER DOC: writes the tables of a results folder into DOC.

The document marks the place of each table by a line <!-- table NAME --> and its end
by <!-- end -->; what stands between them is replaced, the prose stays. A table of which
nothing is measured says so.
"""
import json
import math
import os
import sys

folder, doc = sys.argv[1:3]

METHODS = ["base", "single", "mixed", "moa", "router-only", "ridge", "classifier", "arrow",
           "molora", "mixlora", "slim", "modula-flan", "modula-res"]
TITLES = {"single": "single (told the domain)", "router-only": "moa, router_only"}
GENERAL = ["mmlu", "piqa", "winogrande", "wikitext2"]


def title(name):
    for seed in ("-2", "-3"):
        if name.endswith(seed):
            return title(name[:-2]) + ", seed " + seed[1]
    return TITLES.get(name, name)


def load(name):
    path = os.path.join(folder, name + ".json")
    return json.load(open(path)) if os.path.exists(path) else None


def measured(kind, name):
    """What was measured of a method, without the base that may stand before it."""
    found = load(f"{kind}/{name}")
    return found["methods"][-1] if found else None


def all_measured(kind, names=METHODS):
    found = {n: measured(kind, n) for n in names}
    return {n: m for n, m in found.items() if m}


def table(head, rows):
    if not rows:
        return "Not measured."
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows])


def percent(v, digits=1):
    return "–" if v is None else f"{100 * v:.{digits}f} %"


def number(v, digits=3):
    return "–" if v is None else f"{v:.{digits}f}"


def millions(v):
    return f"{v / 1e6:.2f} M" if v else "–"


def geometric(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def costs(m):
    return [millions(m.get("trainable_parameters")),
            f"{m['tokens'] / 1e3:,.0f} k" if m.get("tokens") else "–",
            f"{m['seconds'] / 60:.1f}" if m.get("seconds") else "–"]


def rows_of(m):
    counts = sorted({d["rows"] for d in m["domains"].values()})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def perplexity():
    rows = []
    for n, m in all_measured("perplexity").items():
        d = m["domains"]
        rows.append([title(n)] + [number(v["perplexity"]) for v in d.values()] +
                    [number(geometric([v["perplexity"] for v in d.values()])), rows_of(m)] +
                    costs(m))
        names = list(d)
    return rows and table(["method"] + names + ["geometric mean", "rows a domain", "parameters",
                                                "tokens", "minutes"], rows)


def score():
    rows = []
    for n, m in all_measured("score").items():
        d = m["domains"]
        rows.append([title(n)] + [percent(v["score"]) for v in d.values()] +
                    [percent(sum(v["score"] for v in d.values()) / len(d))])
        names = [f"{k} ({v['score_rows']})" for k, v in d.items()]
    return rows and table(["method"] + names + ["mean"], rows)


def routing():
    rows = []
    for n, m in all_measured("perplexity", METHODS + ["pool-last"]).items():
        if m.get("routing_accuracy") is None:
            continue
        d = m["domains"]
        rows.append([title(n)] + [percent(v["routing_accuracy"]) for v in d.values()] +
                    [percent(m["routing_accuracy"], 2), number(m.get("gate_entropy"), 2)])
        names = list(d)
    return rows and table(["method"] + names + ["all", "entropy of gates"], rows)


def confusion(method):
    m = measured("perplexity", method)
    c = m and m["confusion"]
    return c and table(["rows of \\ routed to"] + list(next(iter(c.values()))),
                       [[d] + [str(n) for n in row.values()] for d, row in c.items()])


def change(g, digits=1, scale=100):
    low, high = (scale * v for v in g["ci95"])
    return f"{scale * g['change']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def general_row(m, base):
    row = []
    for s in GENERAL:
        g, b = m["general"].get(s), base and base["general"].get(s)
        if not g:
            row += ["–"]
        elif s == "wikitext2":
            row.append(number(g["perplexity"], 2) + ("" if not g.get("ci95") else " " + change(g, 2, 1)))
        else:
            row.append(percent(g["score"]) + ("" if not g.get("ci95") else " " + change(g)))
    return row


def general(kind="general", names=METHODS):
    rows = []
    for n in names:
        found = load(f"{kind}/{n}")
        if found:
            m = found["methods"][-1]
            rows.append([title(n)] + general_row(m, found["methods"][0]) +
                        [number(m.get("identity_share"), 3) if m.get("identity_share") else "–"])
            counts = {s: m["general"][s]["rows"] for s in m["general"]}
    return rows and table(["method"] + [f"{s} ({counts[s]} " + ("windows)" if s == "wikitext2"
                                        else "rows)") for s in counts] + ["share of identity"],
                          rows)


def ood():
    rows = []
    for n, m in all_measured("general").items():
        s, b = m["domains"]["svamp"], m["domains"]["bfcl"]
        rows.append([title(n), number(s["perplexity"]), percent(s["score"]),
                     number(b["perplexity"]), percent(b.get("json_valid")),
                     percent(b.get("json_name")), percent(b["score"])])
    return rows and table(["method", "svamp: perplexity", "number right", "bfcl: perplexity",
                           "is JSON", "name right", "all right"], rows)


def seeds():
    names = [n + s for n in METHODS for s in ("", "-2") if measured("perplexity", n + "-2")]
    rows = []
    for n in names:
        m = measured("perplexity", n)
        d = m["domains"]
        rows.append([title(n) if n.endswith("-2") else title(n) + ", seed 1"] +
                    [number(v["perplexity"]) for v in d.values()] +
                    [number(geometric([v["perplexity"] for v in d.values()])),
                     percent(m.get("routing_accuracy"), 2)])
        head = list(d)
    return rows and table(["method"] + head + ["geometric mean", "routed right"], rows)


STRESS = ["single", "moa", "molora", "slim", "slim-all", "modula-flan", "modula-res"]


STRESSED = {"single": "one LoRA"}


def stress():
    rows = []
    for n in STRESS:
        found = load(f"stress/{n}")
        if not found:
            continue
        for m in found["methods"][1 if rows else 0:]:
            law = m["domains"]["law"]
            rows.append([m["name"] if m["name"] == "base" else STRESSED.get(n, n),
                         number(law["perplexity"]), percent(law["score"])] +
                        general_row(m, found["methods"][0]) +
                        [number(m["identity_share"]) if m.get("identity_share") else "–",
                         millions(m.get("trainable_parameters"))])
        counts = {s: m["general"][s]["rows"] for s in m["general"]}
        n_law = law["rows"]
    return rows and table(["method", f"law ({n_law} rows): perplexity", "score"] +
                          [f"{s} ({c})" for s, c in counts.items()] +
                          ["share of identity", "parameters"], rows)


def grown():
    rows = []
    for n in METHODS:
        a = load(f"grow/{n}")
        if a:
            cost, anew = a["cost"], a["everything_anew"]
            rows.append([title(n)] +
                        [f"{cost[k]:,.0f} of {anew[k]:,.0f}" +
                         (f" ({100 * cost[k] / anew[k]:.1f} %)" if anew[k] else "")
                         for k in ("parameters", "tokens", "steps", "seconds")] +
                        ["unchanged" if a["others_unchanged"] else "CHANGED"])
    return rows and table(["method", "parameters", "tokens", "steps", "seconds",
                           "old experts' files"], rows)


def grown_domains():
    rows, names = [], []
    for n in METHODS:
        a = load(f"grow/{n}")
        if a:
            names = [d["name"] for d in a["domains"] if d["name"] != "universal"]
            rows.append([title(n)] +
                        [f"{d['change']:+.3f} [{d['ci95'][0]:+.3f}, {d['ci95'][1]:+.3f}]"
                         if d["change"] or any(d["ci95"]) else "0"
                         for d in a["domains"] if d["name"] != "universal"])
    return rows and table(["method"] + names, rows)


def grown_routing():
    rows, names = [], []
    for n in METHODS:
        a = load(f"grow/{n}")
        new = measured("grown", n)
        if a and n != "single":
            old = [d for d in a["domains"] if d["name"] != "universal"]
            mean = [sum(d[k] for d in old) / len(old) for k in ("routing_before", "routing_after")]
            rows.append([title(n), percent(mean[0], 2), percent(mean[1], 2)] +
                        ([percent(d["routing_accuracy"], 2) for d in new["domains"].values()] +
                         [number(d["perplexity"]) for d in new["domains"].values()]
                         if new else ["–", "–"]))
    return rows and table(["method", "old domains routed right before", "after",
                           "strategyqa routed right", "its perplexity"], rows)


def main():
    made = {"perplexity": perplexity, "score": score, "routing": routing,
            "confusion": lambda: confusion("moa"),
            "confusion-router-only": lambda: confusion("router-only"),
            "general": general, "ood": ood, "seeds": seeds, "stress": stress, "grown": grown,
            "grown-domains": grown_domains, "grown-routing": grown_routing}
    text, at, out = open(doc).read().split("\n"), 0, []
    while at < len(text):
        out.append(text[at])
        if text[at].startswith("<!-- table "):
            name = text[at].split()[2]
            out += ["", made[name]() or "Not measured.", ""]
            while text[at] != "<!-- end -->":
                at += 1
            out.append(text[at])
        at += 1
    open(doc, "w").write("\n".join(out))


if __name__ == "__main__":
    main()
