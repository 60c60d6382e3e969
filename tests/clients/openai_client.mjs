// SPDX-License-Identifier: Apache-2.0
// The openai package for Node against the server at $URL.
import assert from "node:assert/strict";
import OpenAI from "openai";

const baseURL = process.env.URL + "/v1";
const apiKey = process.env.KEY;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "beta 3" }];
const asked = { model: "auto", messages, max_tokens: 12, temperature: 0 };
const schema = {
  type: "object",
  properties: { n: { type: "integer", minimum: 0, maximum: 9 } },
  required: ["n"],
  additionalProperties: false,
};

const whole = await client.chat.completions.create(asked);
assert.equal(whole.choices[0].message.role, "assistant");
assert.equal(whole.artel.expert, "beta");
assert.ok(whole.usage.completion_tokens > 0);

let text = "";
let usage = null;
const stream = await client.chat.completions.create({
  ...asked, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, whole.choices[0].message.content);
assert.equal(usage.completion_tokens, whole.usage.completion_tokens);

const shaped = await client.chat.completions.create({
  ...asked, max_tokens: 100,
  response_format: { type: "json_schema", json_schema: { name: "n", strict: true, schema } },
});
assert.ok(Number.isInteger(JSON.parse(shaped.choices[0].message.content).n));

const called = await client.chat.completions.create({
  ...asked, max_tokens: 100, tool_choice: { type: "function", function: { name: "pick" } },
  tools: [{ type: "function", function: { name: "pick", parameters: schema } }],
});
assert.equal(called.choices[0].finish_reason, "tool_calls");
assert.equal(called.choices[0].message.tool_calls[0].function.name, "pick");

await assert.rejects(client.chat.completions.create({ ...asked, model: "nobody" }),
  (e) => e instanceof OpenAI.NotFoundError && e.status === 404);
await assert.rejects(client.chat.completions.create({ ...asked, top_p: 3 }),
  (e) => e instanceof OpenAI.BadRequestError && e.param === "top_p");
await assert.rejects(new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).models.list(),
  (e) => e instanceof OpenAI.AuthenticationError);
await assert.rejects(
  client.chat.completions.create(
    { ...asked, model: "base", n: 16, max_tokens: 400, temperature: 2 }, { timeout: 2 }),
  (e) => e instanceof OpenAI.APIConnectionTimeoutError);

const left = await client.chat.completions.create({ ...asked, max_tokens: 400, stream: true });
for await (const chunk of left) {
  left.controller.abort();
  break;
}
const names = [];
for await (const model of client.models.list()) names.push(model.id);
assert.ok(names.includes("alpha") && names.includes("base"), names.join());
console.log("openai (Node): ok");
