// Sends the examples of docs/simulator.md to the control API at CONTROL, in order, as
// a caller in another language does. Run by TestAcceptanceControlAPIFromNode.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

const { CONTROL, DOCUMENT } = process.env;
const document = readFileSync(DOCUMENT, "utf8");
const examples = [...document.matchAll(/```sh\n(.*?)```\n\n```json (\d+)\n(.*?)```/gs)];
assert.ok(examples.length > 10, "the document has examples");

for (const [, command, status, answer] of examples) {
  test(command.trim(), async () => {
    const [, method = "GET", path, body] =
      command.match(/^curl (?:-X (\w+) )?http:\/\/127\.0\.0\.1:9081(\S+)(?: \\\n  -d '(.*)')?\n$/s);
    const response = await fetch(CONTROL + path, { method, body });
    const text = await response.text();
    assert.equal(response.status, Number(status), text);
    assert.deepEqual(text && JSON.parse(text), answer.trim() && JSON.parse(answer));
  });
}
