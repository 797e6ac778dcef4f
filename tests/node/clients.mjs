// OpenAI's client for Node, the npm package chatgpt and a strict event-stream parser, against a running gateway.
// Prints one JSON object: the name of each check, and "ok" or what went wrong.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import http from "node:http";

import { ChatGPTAPI } from "chatgpt";
import { createParser } from "eventsource-parser";
import OpenAI, { AzureOpenAI, toFile } from "openai";

const origin = process.argv[2];
const messages = [{ role: "user", content: "Grüße, 世界" }];
const said = 'You said: "Grüße, 世界".';
const options = { apiKey: "x", maxRetries: 0 };
const clients = {
  OpenAI: new OpenAI({ ...options, baseURL: `${origin}/v1` }),
  AzureOpenAI: new AzureOpenAI({ ...options, endpoint: origin, apiVersion: "2024-06-01" }),
};
const complete = [
  "gpt-4o", "fault-slow", "fault-no-last-newline", "fault-crlf", "fault-split", "fault-no-marker", "fault-gzip",
  "fault-spaced-done", "fault-async-filter",
];
const broken = ["fault-cut", "fault-stall", "fault-no-done", "fault-truncated", "fault-late-error-event"];
const errors = {
  "fault-400": OpenAI.BadRequestError,
  "fault-401": OpenAI.AuthenticationError,
  "fault-401-token": OpenAI.AuthenticationError,
  "fault-403": OpenAI.PermissionDeniedError,
  "fault-404": OpenAI.NotFoundError,
  "fault-409": OpenAI.ConflictError,
  "fault-422": OpenAI.UnprocessableEntityError,
  "fault-429-bare": OpenAI.RateLimitError,
  "fault-500": OpenAI.InternalServerError,
  "fault-html": OpenAI.InternalServerError,
  "fault-error-event": OpenAI.RateLimitError,
};

async function collect(stream) {
  let text = "";
  for await (const chunk of stream) for (const choice of chunk.choices) text += choice.delta?.content ?? "";
  return text;
}

const checks = {};
for (const [kind, client] of Object.entries(clients)) {
  const check = (name, run) => { checks[`${kind} ${name}`] = run; };

  check("chat", async () => {
    const answer = await client.chat.completions.create({ model: "gpt-3.5-turbo", messages });
    assert.equal(answer.choices[0].message.content, said);
    assert.ok(answer._request_id);
  });
  check("tools", async () => {
    const tools = [{ type: "function", function: { name: "look_up", parameters: { type: "object" } } }];
    const answer = await client.chat.completions.create({ model: "gpt-4o", messages, tools, tool_choice: "required" });
    assert.equal(answer.choices[0].message.tool_calls[0].function.name, "look_up");
  });
  for (const model of complete)
    check(`stream ${model}`, async () => {
      assert.equal(await collect(await client.chat.completions.create({ model, messages, stream: true })), said);
    });
  for (const model of broken)
    check(`broken stream ${model}`, async () => {
      const stream = await client.chat.completions.create({ model, messages, stream: true });
      await assert.rejects(collect(stream));
    });
  for (const [model, type] of Object.entries(errors))
    for (const stream of [false, true])
      check(`error ${model}${stream ? " streamed" : ""}`, async () => {
        await assert.rejects(client.chat.completions.create({ model, messages, stream }), (error) => {
          assert.ok(error instanceof type, `${error}`);
          assert.ok(!error.message.includes("no body"), error.message);
          assert.ok(error.requestID, "no request id");
          return true;
        });
      });
  check("embeddings", async () => {
    const answer = await client.embeddings.create({ model: "embed", input: ["one", "two"] });
    assert.equal(answer.data.length, 2);
    assert.equal(typeof answer.data[0].embedding[0], "number");
  });
  check("transcription of a file that comes before its model", async () => {
    const sound = Buffer.alloc(3_000_000, "RIFF");
    const answer = await client.audio.transcriptions.create({ file: await toFile(sound, "a b.wav"), model: "whisper" });
    assert.ok(answer.text.includes("a b.wav") && answer.text.includes("3000000"), answer.text);
    assert.ok(answer.text.includes(createHash("sha256").update(sound).digest("hex").slice(0, 8)), answer.text);
  });
  check("speech", async () => {
    const answer = await client.audio.speech.create({ model: "tts-1", voice: "alloy", input: "hi" });
    assert.ok((await answer.arrayBuffer()).byteLength > 10_000);
  });
  check("images", async () => {
    const made = await client.images.generate({ model: "image", prompt: "a cat" });
    assert.ok(made.data[0].b64_json);
    const image = await toFile(Buffer.from("\x89PNG"), "cat.png", { type: "image/png" });
    const edited = await client.images.edit({ image, prompt: "a hat", model: "image" });
    assert.ok(edited.data[0].b64_json);
  });
  check("files", async () => {
    const content = Buffer.alloc(2_000_000, `${kind}\n`);
    const made = await client.files.create({ file: await toFile(content, "data.jsonl"), purpose: "batch" });
    assert.equal(made.filename, "data.jsonl");
    const back = Buffer.from(await (await client.files.content(made.id)).arrayBuffer());
    assert.ok(back.equals(content));
    await client.files.delete(made.id);
    await assert.rejects(client.files.retrieve(made.id), OpenAI.NotFoundError);
  });
  check("responses", async () => {
    const answer = await client.responses.create({ model: "gpt-4o", input: "hi there" });
    assert.ok(answer.output_text.includes("hi there"));
    const kinds = [];
    for await (const event of await client.responses.create({ model: "gpt-4o", input: "hi", stream: true }))
      kinds.push(event.type);
    assert.equal(kinds.at(-1), "response.completed");
  });
  check("models", async () => {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    assert.ok(names.includes("gpt-3.5-turbo"));
  });
}

checks["a wait of a day is not slept"] = async () => {
  const patient = new OpenAI({ apiKey: "x", baseURL: `${origin}/v1`, maxRetries: 2 });
  await assert.rejects(patient.chat.completions.create({ model: "fault-429-day", messages }), OpenAI.RateLimitError);
};
// What chatgpt-web and its relatives use: without a final blank line its promise never settles.
for (const model of ["gpt-4o", "fault-no-last-newline", "fault-no-marker"])
  for (const stream of [false, true])
    checks[`chatgpt ${model}${stream ? " streamed" : ""}`] = async () => {
      const api = new ChatGPTAPI({ apiKey: "x", apiBaseUrl: `${origin}/v1`, completionParams: { model } });
      let partial = "";
      const onProgress = stream ? (message) => { partial = message.text; } : undefined;
      const answer = await api.sendMessage("Grüße, 世界", { onProgress, timeoutMs: 8000 });
      assert.ok(answer.text.includes("Grüße, 世界"), answer.text);
      if (stream) assert.equal(partial, answer.text);
    };

/** The data of every event that a strict parser dispatches, and whether the response came to its end. */
function events(model) {
  return new Promise((resolve, reject) => {
    const data = [];
    const parser = createParser({ onEvent: (event) => data.push(event.data), onError: reject });
    const decoder = new TextDecoder("utf-8", { fatal: true });
    const body = JSON.stringify({ model, messages, stream: true });
    const headers = { "content-type": "application/json" };
    const request = http.request(`${origin}/v1/chat/completions`, { method: "POST", headers }, (response) => {
      response.on("data", (chunk) => parser.feed(decoder.decode(chunk, { stream: true })));
      response.on("close", () => resolve({ data, ended: response.complete }));
      response.on("error", () => {});
    });
    request.on("error", reject);
    request.end(body);
  });
}
for (const model of complete)
  checks[`strict parser sees the end of ${model}`] = async () => {
    const { data, ended } = await events(model);
    assert.equal(data.at(-1), "[DONE]");
    assert.ok(ended);
    for (const one of data.slice(0, -1)) assert.equal(JSON.parse(one).error, undefined);
  };
for (const model of broken)
  checks[`strict parser sees the error of ${model}`] = async () => {
    const { data, ended } = await events(model);
    assert.ok(JSON.parse(data.at(-1)).error.message);
    assert.ok(!data.includes("[DONE]") && !ended);
    for (const one of data.slice(0, -1)) JSON.parse(one);
  };

const results = {};
await Promise.all(
  Object.entries(checks).map(async ([name, run]) => {
    try {
      await run();
      results[name] = "ok";
    } catch (error) {
      results[name] = String(error?.stack ?? error);
    }
  }),
);
console.log(JSON.stringify(results));
process.exit(0);
