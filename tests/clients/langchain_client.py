#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""LangChain's ChatOpenAI against the server at $URL: a call, and a stream."""
import os

from langchain_openai import ChatOpenAI

llm = ChatOpenAI(model="auto", base_url=os.environ["URL"] + "/v1", api_key=os.environ["KEY"],
                 temperature=0, max_tokens=8, max_retries=0)
whole = llm.invoke([("system", "Be brief."), ("human", "alpha 3")])
assert whole.usage_metadata["input_tokens"] > 0, whole
parts = [c.content for c in llm.stream([("system", "Be brief."), ("human", "alpha 3")])]
assert "".join(parts) == whole.content, (parts, whole)
print("langchain: ok")
