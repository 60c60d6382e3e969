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

METHODS = ["base", "single", "single-twice", "mixed", "mixed-wide", "moa", "router-only", "ridge",
           "classifier", "arrow", "molora", "mixlora", "slim", "modula-flan", "modula-res", "res-bare"]
TITLES = {"single": "single (told the domain)", "single-twice": "single, two epochs (told)",
          "mixed-wide": "mixed, rank 64", "router-only": "moa router_only", "res-bare": "modula-res without residual"}
WHOLE = ["base", "mixed", "moa", "modula-res", "slim"]
whole = False  # is the table that is being made one of whole sets?
SENT = [n for n in METHODS if not n.startswith("single")]  # those that find the expert out
GENERAL = ["mmlu", "piqa", "winogrande", "wikitext2"]


def title(name):
    return TITLES.get(name, name)


def load(name):
    path = os.path.join(folder, name + ".json")
    return json.load(open(path)) if os.path.exists(path) else None


def counts_of(kind):
    """Numbers of rows that anything is measured with, the most first."""
    counts = [d[len(kind) + 1:] for d in os.listdir(folder) if d.startswith(kind + ".")]
    return sorted(counts, key=lambda n: math.inf if n == "all" else int(n), reverse=True)


def most(kind, name):
    """KIND.ROWS/NAME: every row in the tables of whole sets; in others with the rows that most
    methods are measured with, or as many as there are where NAME is not among those."""
    if whole:
        return load(f"{kind}.all/{name}")
    counts = counts_of(kind)
    usual = max(counts, default=None,
                key=lambda n: sum(os.path.exists(f"{folder}/{kind}.{n}/{m}.json") for m in METHODS))
    return next(filter(None, (load(f"{kind}.{n}/{name}") for n in [usual] + counts)), None)


def measured(kind, name):
    """What was measured of a method, without the base that may stand before it."""
    found = most(kind, name)
    return found["methods"][-1] if found else None


def all_measured(kind, names=METHODS):
    found = {n: measured(kind, n) for n in names}
    return {n: m for n, m in found.items() if m}


def likelihoods(names=METHODS):
    """Perplexity and routing; of the rows that were answered where no more are measured."""
    found = {n: measured("perplexity", n) or measured("score", n) for n in names}
    return {n: m for n, m in found.items() if m}


def table(head, rows):
    if not rows:
        return "Not measured."
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows])


def missing(measured_of, names):
    """What a table still lacks, as a line below it."""
    left = [title(n) for n in names if n not in measured_of]
    return f"\n\nNot measured: {', '.join(left)}." if left else ""


def percent(v, digits=1):
    return "–" if v is None else f"{100 * v:.{digits}f} %"


def number(v, digits=3):
    return "–" if v is None else f"{v:.{digits}f}"


def millions(v):
    return f"{v / 1e6:.2f} M" if v else "–"


def geometric(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def core_minutes(m):
    """Of all stages that the mixture comes from, those that methods share included."""
    path = os.path.join(m["path"], "mixture.json")
    if not os.path.exists(path):
        return None
    stages = json.load(open(path)).get("training", {}).get("stages", {}).values()
    return sum(s.get("seconds", 0) * s.get("threads", 1) for s in stages) / 60


def costs(m):
    minutes = core_minutes(m)
    return [millions(m.get("trainable_parameters")),
            f"{m['tokens'] / 1e3:,.0f} k" if m.get("tokens") else "–",
            f"{minutes:.0f}" if minutes else "–"]


def mean(values):
    return sum(values) / len(values) if values else None


def rows_of(m):
    counts = sorted({d["rows"] for d in m["domains"].values()})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def perplexity():
    rows = []
    for n, m in likelihoods().items():
        d = m["domains"]
        rows.append([title(n)] + [number(v["perplexity"]) for v in d.values()] +
                    [number(geometric([v["perplexity"] for v in d.values()])), rows_of(m)] +
                    costs(m))
        names = list(d)
    return rows and table(["method"] + names + ["geometric mean", "rows a domain", "parameters",
                                                "tokens", "core minutes"], rows) + \
        missing(likelihoods(), METHODS)


def of_rows(name, counts, usual):
    """The method's title, with how many rows were measured where the table's head says another number."""
    here = max(counts.values(), default=0)
    return title(name) + ("" if counts == usual else f" (of {here} rows at most)")


def score():
    rows, usual = [], None
    for n, m in all_measured("score").items():
        d = m["domains"]
        counts = {k: v.get("score_rows", 0) for k, v in d.items()}
        usual = usual or counts
        rows.append([of_rows(n, counts, usual)] + [percent(v["score"]) for v in d.values()] +
                    [percent(mean([v["score"] for v in d.values() if v["score"] is not None]))])
    names = [f"{k} ({v})" for k, v in (usual or {}).items()]
    return rows and table(["method"] + names + ["mean"], rows) + \
        missing(all_measured("score"), WHOLE if whole else METHODS)


def routing():
    rows = []
    for n, m in likelihoods().items():
        if m.get("routing_accuracy") is None:
            continue
        d = m["domains"]
        rows.append([title(n)] + [percent(v["routing_accuracy"]) for v in d.values()] +
                    [percent(m["routing_accuracy"], 2), number(m.get("gate_entropy"), 2)])
        names = list(d)
    return rows and table(["method"] + names + ["all", "entropy of gates"], rows) + \
        missing(likelihoods(), ["moa", "router-only", "ridge", "classifier", "arrow",
                                "modula-flan", "modula-res"])


def confusion(method):
    m = likelihoods([method]).get(method)
    c = m and m["confusion"]
    return c and table(["rows of \\ routed to"] + list(next(iter(c.values()))),
                       [[d] + [str(n) for n in row.values()] for d, row in c.items()])


def change(g, digits=1, scale=100):
    low, high = (scale * v for v in g["ci95"])
    return f"{scale * g['change']:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def general_cells(kind, name):
    """A cell for each general set, of the method, and of the base where it stands before."""
    rows = {}
    for part in ("general", "text"):
        found = most(kind + part, name)
        for m in found["methods"] if found else []:
            rows.setdefault(m["name"] == "base", {}).update(m["general"])
    cells = {}
    for is_base, sets in rows.items():
        cells[is_base] = []
        for s in GENERAL:
            g = sets.get(s)
            shown = "not measured" if not g else number(g["perplexity"], 2) if s == "wikitext2" \
                else percent(g["score"])
            if g and g.get("ci95"):
                shown += " " + (change(g, 2, 1) if s == "wikitext2" else change(g))
            cells[is_base].append(shown)
    counts = {s: g["rows"] for s, g in next(iter(rows.values()), {}).items()}
    return cells, counts


def general_head(counts):
    return [f"{s} ({counts.get(s, '–')} {'windows' if s == 'wikitext2' else 'rows'})" for s in GENERAL]


def general():
    rows, head = [], {}
    for n in all_measured("general", METHODS if not whole else WHOLE):
        cells, counts = general_cells("", n)
        head = head or counts
        for is_base, row in cells.items():
            if is_base == (n == "base"):
                fewer = "" if counts == head else f" ({counts.get('mmlu', '–')} rows, " \
                    f"{counts.get('wikitext2', '–')} windows)"
                rows.append([title(n) + fewer] + row)
    return rows and table(["method"] + general_head(head), rows) + \
        missing(all_measured("general"), WHOLE if whole else SENT)


def identity(prefix=""):
    """Share of slim's identities in the domains and outside."""
    sets = {}
    for kind in ("score", "general", "text"):
        found = most(prefix + kind, "slim")
        if found:
            m = found["methods"][-1]
            sets.update({k: v for k, v in {**m["domains"], **m["general"]}.items()
                         if k not in sets and v["rows"] > 1})
    return sets and table(["set"] + list(sets),
                          [["share of identity"] + [percent(v.get("identity_share")) for v in sets.values()]])


def ood():
    rows = []
    for n, m in all_measured("general").items():
        s, b = m["domains"]["svamp"], m["domains"]["bfcl"]
        rows.append([title(n), number(s["perplexity"]), percent(s["score"]),
                     number(b["perplexity"]), percent(b.get("json_valid")),
                     percent(b.get("json_name")), percent(b["score"]), rows_of(m)])
    return rows and table(["method", "svamp: perplexity", "number right", "bfcl: perplexity",
                           "is JSON", "name right", "all right", "rows"], rows) + \
        missing(all_measured("general"), WHOLE if whole else SENT)


def seeds():
    """NAME beside NAME-2, of as many rows as the latter was measured with."""
    rows = []
    for n in METHODS:
        count = next((c for c in counts_of("perplexity") if load(f"perplexity.{c}/{n}-2")), None)
        for k, name in enumerate([n, n + "-2"] if count else []):
            m = load(f"perplexity.{count}/{name}")["methods"][-1]
            d = m["domains"]
            rows.append([f"{title(n)}, seed {k + 1}"] +
                        [number(v["perplexity"]) for v in d.values()] +
                        [number(geometric([v["perplexity"] for v in d.values()])),
                         percent(m.get("routing_accuracy"), 2)])
            head = list(d)
    return rows and table(["method"] + head + ["geometric mean", "routed right"], rows)


STRESS = ["single", "moa", "molora", "slim", "modula-flan", "modula-res"]
STRESSED = {"single": "one LoRA", "modula-flan": "modula-flan (universal beside it)"}


def stress():
    rows, head = [], {}
    for n in STRESS:
        found = most("stress-general", n)
        if not found:
            continue
        cells, counts = general_cells("stress-", n)
        head = {**head, **counts}
        for m in found["methods"][1 if rows else 0:]:
            law, is_base = m["domains"]["law"], m["name"] == "base"
            n_law = law["rows"]
            rows.append(["base" if is_base else STRESSED.get(n, n), number(law["perplexity"]),
                         percent(law["score"])] + cells[is_base] +
                        [millions(m.get("trainable_parameters"))])
    return rows and table(["method", f"law ({n_law} rows): perplexity", "score"] +
                          general_head(head) + ["parameters"], rows) + \
        missing(all_measured("stress-general", STRESS), STRESS)


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
                           "old experts' files"], rows) + \
        missing([n for n in METHODS if load(f"grow/{n}")],
                ["single", "moa", "router-only", "ridge", "classifier", "arrow", "modula-flan",
                 "modula-res"])


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
            routed = [mean([d[k] for d in old]) for k in ("routing_before", "routing_after")]
            rows.append([title(n)] + [percent(r, 2) for r in routed] +
                        ([percent(d["routing_accuracy"], 2) for d in new["domains"].values()] +
                         [number(d["perplexity"]) for d in new["domains"].values()]
                         if new else ["–", "–"]))
    return rows and table(["method", "old domains routed right before", "after",
                           "strategyqa routed right", "its perplexity"], rows)


def of_whole_sets(make):
    global whole
    whole = True
    try:
        return make()
    finally:
        whole = False


def main():
    made = {"perplexity": perplexity, "score": score, "routing": routing,
            "confusion": lambda: confusion("moa"),
            "confusion-router-only": lambda: confusion("router-only"),
            "general": general, "identity": identity,
            "identity-stress": lambda: identity("stress-"), "ood": ood, "seeds": seeds,
            "stress": stress, "grown": grown,
            "grown-domains": grown_domains, "grown-routing": grown_routing}
    for name in ("score", "general", "ood"):
        made["whole-" + name] = lambda make=made[name]: of_whole_sets(make)
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
