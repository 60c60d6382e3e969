#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Texts as hashed character n-grams, written from docs/METHODS.md without a look at the C.

    python3 make_ngrams_golden.py > ngrams.jsonl

One line a text: its bytes in hex, the settings, the buckets that are not empty in ascending
order, and their values.
"""
import json
import math

BLANKS = b" \t\n\v\f\r"
TEXTS = [
    b"", b" \n\t ", b"a", b"ab", b"Hello, World!", b"  two   blanks\tand\r\na line ",
    b"aaaaaaaaaaaaaaaaaaaaaaaa", b"SELECT name FROM t WHERE id = 3;",
    "Grüße aus Köln, naïve café ÄÖÜ".encode(), "中文字 и кириллица Ελλάδα".encode(),
    "emoji 😀😀 and ZWJ 👩‍💻, no-break\u00a0space".encode(),
    b"\xff\xfe broken \xc3( \xe2\x82 end \xe2\x82", b"\x80\xbf lone", b"\xf0\x9f\x98",
    b"\xc0\xaf \xe0\x80\x80 \xed\xa0\x80 \xf5\x80\x80\x80 overlong", b"nul \x00 inside\x00",
    b"The quick brown fox jumps over the lazy dog. " * 20,
]
SETTINGS = [(2, 4, 16384, True), (1, 1, 64, True), (3, 3, 1000, False), (1, 8, 1048576, True)]


def characters(data):
    out, i = [], 0
    while i < len(data):
        lead = data[i]
        n = 1 if lead < 0xC2 or lead > 0xF4 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        rest = data[i + 1:i + n]
        if len(rest) != n - 1 or any(not 0x80 <= b <= 0xBF for b in rest):
            n = 1
        out.append(data[i:i + n])
        i += n
    return out


def normalised(data, lower):
    words, word = [], []
    for c in characters(data):
        if len(c) == 1 and c in BLANKS:
            if word:
                words.append(word)
            word = []
        else:
            word.append(c.lower() if lower and len(c) == 1 else c)
    if word:
        words.append(word)
    if not words:
        return []
    out = [b" "]
    for w in words:
        out += w + [b" "]
    return out


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def features(data, low, high, buckets, lower):
    text, counts = normalised(data, lower), {}
    for n in range(low, high + 1):
        for i in range(len(text) - n + 1):
            h = fnv(b"".join(text[i:i + n]))
            at = (h ^ (h >> 32)) % buckets
            counts[at] = counts.get(at, 0) + 1
    v = {at: 1 + math.log(c) for at, c in counts.items()}
    length = math.sqrt(math.fsum(x * x for x in v.values()))
    return [(at, v[at] / length) for at in sorted(v)]


for text in TEXTS:
    for low, high, buckets, lower in SETTINGS:
        z = features(text, low, high, buckets, lower)
        print(json.dumps({"text": text.hex(), "min": low, "max": high, "buckets": buckets,
                          "lowercase": lower, "at": [a for a, _ in z],
                          "value": [round(x, 9) for _, x in z]}, separators=(",", ":")))
