#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""openai_client.py FOLDER: the openai package against the server at $URL.

FOLDER holds prompts.txt and run-EXPERT.json, what artel run answered to them.
"""
import concurrent.futures
import json
import os
import sys

import openai

folder = sys.argv[1]
URL, KEY = os.environ["URL"] + "/v1", os.environ["KEY"]
client = openai.OpenAI(base_url=URL, api_key=KEY, max_retries=0)
LONG = {"n": 16, "max_tokens": 400, "temperature": 2}  # some hundred milliseconds at least
QUESTION = [{"role": "user", "content": "alpha 3"}]
SCHEMA = {"type": "object",
          "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99},
                         "kind": {"enum": ["one", "two"]}},
          "required": ["n", "kind"], "additionalProperties": False}


def ask(content="alpha 3", model="auto", **more):
    more.setdefault("max_tokens", 12)
    more.setdefault("temperature", 0)
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": content}], **more)


def models():
    ids = [m.id for m in client.models.list()]
    assert set(ids) >= {"auto", "alpha", "beta", "base"}, ids
    assert client.models.retrieve("alpha").id == "alpha"


def chat():
    r = ask()
    assert r.object == "chat.completion" and r.choices[0].message.role == "assistant"
    assert r.choices[0].finish_reason in ("stop", "length"), r
    assert r.usage.prompt_tokens > 0
    assert r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens
    route = r.artel
    assert route["expert"] == "alpha", route
    assert abs(sum(route["probabilities"].values()) - 1) < 1e-3, route
    assert ask("beta 3").artel["expert"] == "beta"
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=QUESTION, max_tokens=4)
    assert raw.headers["x-artel-expert"] == "alpha", raw.headers
    assert raw.parse().choices[0].message.content is not None


def streamed(**more):
    text, roles, usage, chunks, finish = "", [], None, 0, None
    for chunk in ask(stream=True, stream_options={"include_usage": True}, **more):
        chunks += 1
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            if choice.delta.role:
                roles.append(choice.delta.role)
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert roles == ["assistant"], roles
    assert usage and usage.completion_tokens > 0, usage
    assert finish in ("stop", "length") and chunks > 2, (finish, chunks)
    return text


def stream():
    assert streamed() == ask().choices[0].message.content


def equals_run():
    """Each alone, and then all of them at once, beside each other in one batch."""
    jobs = []
    prompts = open(os.path.join(folder, "prompts.txt")).read().split("\n")[:-1]
    for expert in ("auto", "alpha", "beta", "base"):
        rows = json.load(open(os.path.join(folder, f"run-{expert}.json")))["rows"]
        assert len(rows) == len(prompts)
        jobs += [(expert, p, row) for p, row in zip(prompts, rows)]

    def same(job):
        expert, prompt, row = job
        r = ask(prompt, model=expert)
        assert r.choices[0].message.content == row["text"], (job, r)
        assert r.choices[0].finish_reason == row["finish_reason"], (job, r)
        assert r.artel["expert"] == (row["expert"] or "base"), (job, r)

    for job in jobs:
        same(job)
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        list(pool.map(same, jobs * 4))


def choices_and_seeds():
    r = ask(n=3, temperature=1.5, seed=7)
    assert [c.index for c in r.choices] == [0, 1, 2]
    again = ask(n=3, temperature=1.5, seed=7)
    assert [c.message.content for c in r.choices] == [c.message.content for c in again.choices]
    short = ask(stop=["l"], model="alpha", max_tokens=40)
    assert "l" not in short.choices[0].message.content


def logprobs():
    r = ask(logprobs=True, top_logprobs=3, max_tokens=3)
    tokens = r.choices[0].logprobs.content
    assert tokens and all(len(t.top_logprobs) == 3 for t in tokens), tokens
    for t in tokens:
        assert t.logprob <= 0 and t.top_logprobs[0].logprob >= t.logprob - 1e-6
    r = client.completions.create(model="alpha", prompt="alpha", max_tokens=0, echo=True,
                                  logprobs=1, temperature=0)
    lp = r.choices[0].logprobs
    assert r.choices[0].text == "alpha" and lp.token_logprobs[0] is None, r
    assert all(x <= 0 for x in lp.token_logprobs[1:]), r


def completions():
    r = client.completions.create(model="base", prompt=["alpha", "beta"], max_tokens=5, n=2)
    assert [c.index for c in r.choices] == [0, 1, 2, 3]
    assert r.object == "text_completion" and r.usage.prompt_tokens > 0
    text = "".join(c.choices[0].text for c in client.completions.create(
        model="base", prompt="alpha", max_tokens=5, temperature=0, stream=True) if c.choices)
    whole = client.completions.create(model="base", prompt="alpha", max_tokens=5, temperature=0)
    assert text == whole.choices[0].text


def json_modes():
    r = ask(response_format={"type": "json_object"}, max_tokens=200)
    if r.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(r.choices[0].message.content), dict)
    r = ask(response_format={"type": "json_schema",
                             "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}},
            max_tokens=200)
    assert r.choices[0].finish_reason == "stop", r
    made = json.loads(r.choices[0].message.content)
    assert made["kind"] in ("one", "two") and 0 <= made["n"] <= 99, made


def tools():
    tool = {"type": "function",
            "function": {"name": "pick", "description": "Pick.", "parameters": SCHEMA}}
    r = ask(tools=[tool], tool_choice="required", max_tokens=200)
    call = r.choices[0].message.tool_calls[0]
    assert r.choices[0].finish_reason == "tool_calls" and call.function.name == "pick", r
    made = json.loads(call.function.arguments)
    assert made["kind"] in ("one", "two"), made


def embeddings():
    r = client.embeddings.create(model="auto", input=["alpha", "beta"])
    assert len(r.data) == 2 and len(r.data[0].embedding) == 32, r
    assert abs(sum(x * x for x in r.data[0].embedding) - 1) < 1e-3


def refused(kind, status, param=None, **more):
    try:
        ask(**more)
    except kind as e:
        assert e.status_code == status, (e.status_code, e)
        assert param is None or e.param == param, (e.param, e)
        return e
    raise AssertionError(f"{more}: not refused")


def errors():
    refused(openai.NotFoundError, 404, model="nobody")
    refused(openai.BadRequestError, 400, "temperature", temperature=-1)
    refused(openai.BadRequestError, 400, max_tokens=-1)
    refused(openai.BadRequestError, 400, content="alpha " * 5000)
    try:
        openai.OpenAI(base_url=URL, api_key="wrong", max_retries=0).models.list()
    except openai.AuthenticationError as e:
        assert e.status_code == 401
    else:
        raise AssertionError("a wrong key is taken")
    try:
        client.with_options(timeout=2e-3).chat.completions.create(
            model="base", messages=QUESTION, **LONG)
    except openai.APITimeoutError:
        pass
    else:
        raise AssertionError("no time-out")


def leaves():
    """A reader that goes away in the middle of a stream leaves nothing behind."""
    for _ in range(20):
        s = ask(stream=True, max_tokens=400, temperature=1.9)
        next(iter(s))
        s.close()
    assert ask().choices[0].message.content is not None


bad = 0
for check in (models, chat, stream, equals_run, choices_and_seeds, logprobs, completions,
              json_modes, tools, embeddings, errors, leaves):
    try:
        check()
        print("openai (Python):", check.__name__, "ok")
    except Exception as e:  # every check is told, not the first alone
        bad = 1
        print("openai (Python):", check.__name__, "FAILED:", type(e).__name__, e)
sys.exit(bad)
