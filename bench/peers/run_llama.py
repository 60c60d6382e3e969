#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Works P256, P1000 and D1 in llama.cpp: one JSON line with what they took."""
import argparse
import json
import random
import resource
import statistics
import time

import llama_cpp

WORKS = {"P256": (256, 0), "P1000": (1000, 0), "D1": (16, 32)}


class Context:
    """Straight calls: the time of Python between tokens is not the library's."""

    def __init__(self, path, n_tokens, threads):
        self.llama = llama_cpp.Llama(path, n_ctx=n_tokens, n_batch=n_tokens,
                                     n_threads=threads, n_threads_batch=threads,
                                     verbose=False)
        self.context = self.llama.ctx
        self.n_vocab = self.llama.n_vocab()

    def forget(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def put(self, ids):
        """Logits of the last of IDS are computed."""
        array = (llama_cpp.llama_token * len(ids))(*ids)
        batch = llama_cpp.llama_batch_get_one(array, len(ids))
        if llama_cpp.llama_decode(self.context, batch) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(self.context)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", choices=list(WORKS))
    parser.add_argument("--model", required=True)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()

    n_prompt, n_decoded = WORKS[args.work]
    context = Context(args.model, n_prompt + n_decoded, args.threads)
    draw = random.Random(1)
    seconds = []
    for i in range(args.steps + 1):
        ids = [draw.randrange(context.n_vocab) for _ in range(n_prompt + n_decoded)]
        context.forget()
        start = time.perf_counter()
        context.put(ids[:n_prompt])
        if n_decoded:
            start = time.perf_counter()
        for token in ids[n_prompt:]:
            context.put([token])
        if i:  # the first one warms up
            seconds.append(time.perf_counter() - start)
    print(json.dumps({
        "tokens_per_second": (n_decoded or n_prompt) / statistics.median(seconds),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
