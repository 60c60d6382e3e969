# SPDX-License-Identifier: Apache-2.0
"""The report of an evaluation in a real browser, from its file and without a network: its plots,
a phone, light and dark.

    ARTEL=PROGRAM TESTS=FOLDER python3 report.py     77: no Chromium or no driver here

ARTEL_TEST_SHOTS names a folder that gets pictures of what was seen.
"""
import json
import os
import subprocess
import sys
import tempfile

from webdriver import Browser, found

TESTS = os.environ["TESTS"]
ARTEL = os.environ["ARTEL"]
LONG = "a-domain-whose-name-is-longer-than-a-column-of-a-phone-is-wide"
DOMAINS = {"alpha": "al", "beta": "be", LONG: "lo"}
METHODS = ["moa", "mixed", "slim", "modula-flan"]
RECIPE = """model: {base}
output: {folder}/run
method: [{methods}]
lora: {{rank: 4, alpha: 8}}
universal: {{train: {folder}/alpha.jsonl, rank: 4}}
domains:
{domains}train: {{learning_rate: 2.0e-2, epochs: 4, batch_size: 8, precision: fp32, cutoff_len: 256, eval_steps: 2, val_size: 4}}
router: {{learning_rate: 5.0e-2}}
"""

# Of each visible piece of text: the contrast of its colour to what lies beneath, by WCAG.
CONTRASTS = """
const parts = text => text.match(/[0-9.]+/g).map(Number);
const over = (top, [r, g, b]) => {
    const [x, y, z, a = 1] = parts(top);
    return [x * a + r * (1 - a), y * a + g * (1 - a), z * a + b * (1 - a)];
};
const light = rgb => {
    const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const beneath = e => over(getComputedStyle(e).backgroundColor, e.parentElement ? beneath(e.parentElement) : [255, 255, 255]);
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const out = [];
while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !e.checkVisibility())
        continue;
    const below = beneath(e), a = light(over(getComputedStyle(e).color, below)), b = light(below);
    out.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), text.slice(0, 40)]);
}
return out;
"""
# [left, top, right, bottom, colour of its background] of each
BOXES = """return [...document.querySelectorAll(arguments[0])].map(e => {
    const r = e.getBoundingClientRect();
    return [r.left, r.top, r.right, r.bottom, getComputedStyle(e).backgroundColor];
})"""


def check(right, what):
    if not right:
        raise SystemExit(f"FAILED: {what}")


def run(*words):
    done = subprocess.run([ARTEL, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"artel {' '.join(words)}: exit {done.returncode}: {done.stderr[-500:]}")


def made(folder):
    """A report of four methods; what it was made of."""
    lines = ""
    for name, answer in DOMAINS.items():
        with open(f"{folder}/{name}.jsonl", "w") as file:
            for i in range(16):
                messages = [{"role": "user", "content": f"{name[:5]} {i}"}, {"role": "assistant", "content": answer * 4}]
                file.write(json.dumps({"messages": messages}) + "\n")
        lines += f"  {name}: {{train: {folder}/{name}.jsonl, test: {folder}/{name}.jsonl, score: exact}}\n"
    with open(f"{folder}/choices.jsonl", "w") as file:
        for i in range(6):
            # what alpha's expert answers is wrong here
            file.write(json.dumps({"domain": "exam", "question": f"alpha {i}", "choices": ["q", "al"], "answer": 0}) + "\n")
    with open(f"{folder}/recipe.yaml", "w") as file:
        file.write(RECIPE.format(base=f"{TESTS}/golden/toy-tied.gguf", folder=folder, methods=", ".join(METHODS), domains=lines))
    run("train", f"{folder}/recipe.yaml")
    run("eval", f"{folder}/run", "--max-rows", "6", "--max-tokens", "12", "--precision", "fp32", "--general", f"choices={folder}/choices.jsonl",
        "--results", f"{folder}/told")
    with open(f"{folder}/told/results.json") as file:
        return json.load(file)


# ---- what must be true ----


def it_fits(b, width):
    wide = b.run("return [document.documentElement.scrollWidth, innerWidth]")
    check(wide[0] <= wide[1] == width, f"at {width}: {wide}")
    for left, _, right, _, _ in b.run(BOXES, ".scroll, figure, nav"):
        check(left >= 0 and right <= width, f"at {width}: something reaches from {left} to {right}")


def it_can_be_read(b, scheme):
    found_low = [pair for pair in b.run(CONTRASTS) if pair[0] < 4.5]
    check(found_low == [], f"{scheme}: hardly to be read: {found_low[:5]}")


def all_shares_can_be_read(b, told, folder):
    """In cells from 0 to 100 %, whatever the toy's routers do."""
    shares = dict(told, methods=[dict(m, confusion={f"s{k}": {"alpha": k, "beta": 100 - k} for k in range(101)}) for m in told["methods"][:2]])
    with open(f"{folder}/shares.json", "w") as file:
        json.dump(shares, file)
    run("eval", "--from", f"{folder}/shares.json", "--html", f"{folder}/shares.html")
    b.open(f"file://{folder}/shares.html")
    check(b.count("td.heat") >= 202, "cells of all shares")
    for scheme in ("light", "dark"):
        b.scheme(scheme)
        it_can_be_read(b, scheme)


def perplexities_are_drawn(b, told):
    """A mark a method on each set's line, the further right the larger."""
    lines = b.run("""return [...document.querySelectorAll('figure[aria-label^=Perplexity] .track:not(.axis)')].map(t =>
        [...t.querySelectorAll('.mark')].map(m => { const r = m.getBoundingClientRect(); return [r.left, r.width * r.height]; }))""")
    check(len(lines) == len(DOMAINS), f"{len(lines)} lines of perplexity")
    for name, line in zip(DOMAINS, lines):
        values = [m["domains"][name]["perplexity"] for m in told["methods"]]
        check(len(line) == len(values) and all(area > 20 for _, area in line), f"marks of {name}: {line}")
        for (x, _), v in zip(line, values):
            for (y, _), w in zip(line, values):
                check(v < w * 1.1 or x > y, f"{name}: {v} stands left of {w}")


def curves_are_drawn(b):
    curves = b.run("""return [...document.querySelectorAll('.charts .box')].map(box => {
        const paths = [...box.querySelectorAll('path:not(.grid):not(.zero)')];
        const r = box.getBoundingClientRect();
        return [paths.length, r.width, r.height, ...paths.map(p => p.getBoundingClientRect().width / r.width),
                ...paths.map(p => getComputedStyle(p).stroke)];
    })""")
    check(len(curves) >= 6, f"{len(curves)} training curves")
    for n, width, height, *rest in curves:
        check(n >= 1 and width > 100 and height > 100, f"a curve: {n}, {width} x {height}")
        check(max(rest[:n]) > 0.3, f"a curve is no line: {rest}")
    check(any(n == 2 for n, *_ in curves), "no curve of rows that were held out")


def cells_are_coloured(b, selector, n):
    """Those of more in another colour than those of less."""
    cells = b.run("""return [...document.querySelectorAll(arguments[0])].map(e =>
        [Number(e.style.getPropertyValue('--v')), getComputedStyle(e).backgroundColor, e.innerText])""", selector)
    check(len(cells) == n, f"{selector}: {len(cells)} cells, not {n}")
    check(len({colour for _, colour, _ in cells}) == len({share for share, _, _ in cells}) > 1, f"{selector}: {cells}")


def gain_is_drawn(b, told):
    """A point a method, within its box: the further right the more it gained, the lower the more it lost."""
    box = b.run(BOXES, ".box.big")[0]
    points = b.run(BOXES, ".box.big .point .mark")
    gains = [sum(m["domains"][name]["score"] for name in DOMAINS) for m in told["methods"]]
    changes = [m["general"]["choices"].get("change") or 0 for m in told["methods"]]
    check(len(points) == len(gains) and min(changes) < 0 < max(gains), f"{points} of {gains} and {changes}")
    for point, gain, change in zip(points, gains, changes):
        left, top, right, bottom, _ = point
        check(box[0] - 9 <= left and right <= box[2] + 9 and box[1] - 9 <= top and bottom <= box[3] + 9, f"{point} is outside of {box}")
        check(right - left > 5 and bottom - top > 5, "a point cannot be seen")
        for other, less, worse in zip(points, gains, changes):
            check(less > gain - 0.1 or other[0] < left, f"gains {gains}: {points}")
            check(worse > change - 0.1 or other[1] > top, f"changes {changes}: {points}")


def sections_are_reached(b):
    links = b.run("return [...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))")
    check(len(links) == 9, f"sections: {links}")
    for link in links:
        b.click(f"nav a[href='{link}']")
        top = b.run("return document.querySelector(arguments[0]).getBoundingClientRect().top", link)
        check(-1 <= top < b.run("return innerHeight"), f"{link} is at {top}")
        b.run("scrollTo(0, 0)")


def main():
    if not found():
        print("no chromium and chromedriver here")
        return 77
    with tempfile.TemporaryDirectory() as folder, Browser() as b:
        told = made(folder)
        page = f"file://{folder}/told/report.html"
        paper = {}
        for width in (360, 390, 1280):
            b.size(width, 800, phone=width < 500)
            b.open(page)
            it_fits(b, width)
            sections_are_reached(b)
            for scheme in ("light", "dark"):
                b.scheme(scheme)
                paper[scheme] = b.run("return getComputedStyle(document.body).backgroundColor")
                for state in ("false", "true"):
                    b.run(f"document.querySelectorAll('details').forEach(d => d.open = {state})")
                    it_fits(b, width)
                it_can_be_read(b, scheme)
                perplexities_are_drawn(b, told)
                curves_are_drawn(b)
                cells_are_coloured(b, "table:has(#t-confusion-2) td.heat", len(DOMAINS) ** 2)
                cells_are_coloured(b, "table:has(#t-layers-2-0) td.heat", 2 * len(DOMAINS))
                gain_is_drawn(b, told)
                if shots := os.environ.get("ARTEL_TEST_SHOTS"):
                    b.screenshot(f"{shots}/report-{width}-{scheme}.png")
        check(paper["light"] != paper["dark"], f"the same by day and by night: {paper}")
        asked = [a for a in b.requests() if a.partition("#")[0] != page]
        check(asked == [], f"asked for: {asked}")
        check(b.run("return performance.getEntriesByType('resource').length") == 0, "the page has loaded something")
        said = b.console()
        check(said == [], f"in the console: {said}")
        all_shares_can_be_read(b, told, folder)
    print("the report does what it should")
    return 0


if __name__ == "__main__":
    sys.exit(main())
