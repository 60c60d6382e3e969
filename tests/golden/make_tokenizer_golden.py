#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What llama.cpp makes of hard texts, for the tests of the tokenizer.

    python3 make_tokenizer_golden.py MODEL.gguf     # llama_cpp gguf tokenizers

MODEL is SmolLM2-135M-Instruct.Q4_1.gguf. Writes, beside this script:

    tokenizer_smollm.jsonl     ids of texts with the model's own vocabulary
    pretokenizer_pieces.jsonl  lengths in bytes of the pieces of random texts, for each
                               of the four pre-tokenizers

The pieces are those of the `tokenizers` library with the published patterns; each
is then checked against llama.cpp by a vocabulary in which every pair of bytes is a
merge, so that a cut in another place gives other ids.
"""
import ctypes
import json
import os
import random
import sys
import tempfile
import unicodedata

import gguf
import llama_cpp
from tokenizers import Regex, pre_tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))
SILENT = llama_cpp.llama_log_callback(lambda level, text, data: None)

HARD = [
    "", " ", "  ", "   ", "\n", "\n\n", "\r\n", "\r", "\t", " \n", "\n ", "a", " a", "a ",
    "Hello, world!", "The quick brown fox jumps over the lazy dog.",
    "I'm here, IT'S 12345 x_1  ok  ", "a\n\n  b\tc--d  (e) 3.14 café 你好!",
    "don't DON'T we'll WE'LL they've I'd you're 's 'S 'll ' s '", "'\u017f I'\u017f",
    "x = 1 + 22 - 333 * 4444 / 55555", "007 1,000.50 1e-5 0x1F 12:34:56 2026-11-22",
    "\u00bd \u00b2 \u2460 a\u00bdb 1\u00bd2 x\u00b2+y\u00b2 \u2167 \u0663 \u0967 \U0001d7d8",
    "\u00bd\u00b2\u2460", "5\u00bd cups", "E=mc\u00b2", " \u00b2", "  \u00b2  \u2460",
    "na\u00efve caf\u00e9 cafe\u0301 \u00c5 A\u030a \u1e9e \ufb01 \u0132",
    "\u4f60\u597d\uff0c\u4e16\u754c\uff01 \u3053\u3093\u306b\u3061\u306f \ud55c\uad6d\uc5b4",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u03b3\u03b5\u03b9\u03ac \u10d2\u10d0\u10db \u0531\u0580",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f44d\U0001f3fd",
    "\U0001f3f3\ufe0f\u200d\U0001f308 \u2764\ufe0f \U0001f1e9\U0001f1ea 1\ufe0f\u20e3",
    "a\u0301\u0302\u0303\u0304\u0305 e\u0301e\u0301", "\u0301\u0301\u0301", "\u200b\u200d\ufeff",
    "a\u00a0b\u2003c\u3000d\u0085e\u2028f\u180eg\u202fh", "\u3000\u3000x", "\u180e\u180e",
    "\x1c\x1d\x1e\x1f", "\x0b\x0c", "line\r\nline\r\n\r\nline\n\r\n", "\r\n\t\r\n  x",
    "def f(x):\n    return x**2  # comment\n\n\n    pass\n", "if (a&&b||!c) { d[0] = \"e\\n\"; }\n",
    "https://example.org/a?b=c&d=%20#e", "user@example.org", "<a href='x'>y</a>", "$100 50% #tag",
    "a" * 300, " " * 300, "." * 300, "\n" * 50, "ab" * 100, "\u0301" * 50, "\u4f60" * 50,
    "\U0001f600" * 20, "1" * 40, "a " * 60, " \n" * 30, "  x" * 20, "\t" * 17, "-" * 81, "=" * 64,
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>", "<|im_end|><|im_end|>",
    " <|im_end|> ", "a<|im_start|>b", "<|im_start", "<|im_start|", "<<|im_end|>>", "<|endoftext|>",
    "<|im_<|im_end|>end|>", "<repo_name>x<file_sep>y<empty_output>", "<reponame><jupyter_start>",
    "<|IM_END|>", "<|im_end |>", "nul\0in\0text", "\0", "\0\0\0", "\x01\x02\x03\x04\x05\x06\x07\x08",
    "a\x04b \x13\x14 \x16x\x1d", "\x7f\x80\x9f", "\ud7ff\ue000\ufffd\uffff", "\U0010ffff\U000f0000",
    "\u0378\u0379", "\U00031350\U0002ebf0\U0001e030 \U0001e4f0\U00011f50", "\u0130\u0131\u01c4\u01c5",
    "\u00aa\u00ba\u02b0\u2071", "\u09f4\u0f2a\u1369\u2080\u2150\u3007\u3021\u3220\ua620\u4e00",
    "\u2212\u00d7\u00f7\u2248\u221e \u20ac\u00a3\u00a5 \u00a9\u00ae\u2122 \u00b5m \u03a9",
    "\u2018a\u2019s \u201cb\u201d \u2026 \u2014 \u2013", "it\u2019s don\u2019t", "\u02bcs",
]


class Reference:
    """llama.cpp's tokenizer of a GGUF file."""

    def __init__(self, path):
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)

    def ids(self, text, special=False):
        data = text.encode()
        room = len(data) + 8
        out = (llama_cpp.llama_token * room)()
        n = llama_cpp.llama_tokenize(self.vocab, data, len(data), out, room, False, special)
        assert n >= 0
        return list(out[:n])


def byte_spelling():
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def write_pairs(path, pre):
    """256 bytes and every pair of them; those that begin with ASCII have the lower rank."""
    spelling = byte_spelling()
    pairs = [(a, b) for a in range(256) for b in range(256)]
    random.Random(7).shuffle(pairs)
    pairs.sort(key=lambda pair: pair[0] >= 128)
    tokens = [spelling[b] for b in range(256)] + [spelling[a] + spelling[b] for a, b in pairs]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * len(tokens))
    writer.add_token_merges([spelling[a] + " " + spelling[b] for a, b in pairs])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def published():
    """The pre-tokenizers as published files have them, without the spelling of bytes."""
    gpt2 = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    modern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER"
              r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

    def split(pattern):
        return pre_tokenizers.Split(Regex(pattern), "isolated")

    return {
        "gpt-2": split(gpt2),
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), split(gpt2)]),
        "llama-bpe": split(modern.replace("NUMBER", r"\p{N}{1,3}")),
        "qwen2": split(modern.replace("NUMBER", r"\p{N}")),
    }


def random_texts(rng, n):
    """Without U+017F and U+180E and unassigned characters: there the published patterns,
    run by the library at hand, and llama.cpp differ (HARD has them)."""
    kinds = {}
    for code in range(0x110000):
        kind = unicodedata.category(chr(code))
        if kind not in ("Cs", "Cn") and code not in (0x17F, 0x180E):
            kinds.setdefault(kind, []).append(chr(code))
    names = sorted(kinds)
    common = list("aZ09 '\n\r\t.,!-_\u00e9\u00bd\u4f60") + ["  ", "\r\n", "'s", "'LL", " 12345", "\n\n ", "the", " of"]
    for _ in range(n):
        text = ""
        for _ in range(rng.randrange(1, 16)):
            if rng.randrange(3):
                text += rng.choice(common)
            else:
                text += rng.choice(kinds[rng.choice(names)])
        yield text


def write_lines(name, rows):
    with open(os.path.join(HERE, name), "w", encoding="ascii", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, separators=(",", ":")) + "\n")


def text_field(text):
    """NUL cannot stand in the JSON that the tests read."""
    return {"hex": text.encode().hex()} if "\0" in text else {"text": text}


def main():
    llama_cpp.llama_log_set(SILENT, ctypes.c_void_p())
    model = Reference(sys.argv[1])
    write_lines("tokenizer_smollm.jsonl",
                [{**text_field(text), "special": special, "ids": model.ids(text, special)}
                 for text in HARD for special in (False, True)
                 if not special or "<" in text])

    rows = [{"text": text, "pieces": {}} for text in random_texts(random.Random(1), 200)]
    with tempfile.TemporaryDirectory() as folder:
        for name, splitter in published().items():
            path = os.path.join(folder, name + ".gguf")
            write_pairs(path, name)
            reference = Reference(path)
            for row in rows:
                pieces = [piece for piece, _ in splitter.pre_tokenize_str(row["text"])]
                assert "".join(pieces) == row["text"]
                apart = [i for piece in pieces for i in reference.ids(piece)]
                assert apart == reference.ids(row["text"]), (name, row["text"], pieces)
                row["pieces"][name] = [len(piece.encode()) for piece in pieces]
    write_lines("pretokenizer_pieces.jsonl", rows)


main()
