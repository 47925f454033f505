// npm's openai client asks the server that is named; what it makes of the answers is printed as JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const asked = { model: "tiny", prompt: "def f(", max_tokens: 8, temperature: 0 };

async function refused(fields) {
  try {
    await client.completions.create({ ...asked, ...fields });
    return null;
  } catch ({ constructor, status, code, param, message }) {
    return { kind: constructor.name, status, code, param, message };
  }
}

const whole = await client.completions.create(asked);
const infilled = await client.completions.create({ ...asked, suffix: "):\n" });
const chunks = [];
const streaming = { stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.completions.create({ ...asked, ...streaming })) chunks.push(chunk);
const models = [];
for await (const model of client.models.list()) models.push(model.id);
const missing = await refused({ model: "/etc/passwd" });
const unserved = await refused({ logit_bias: { 5: 1 } });
console.log(JSON.stringify({ whole, infilled, chunks, models, missing, unserved }));
