/** Runs the conformance table that all clients share. Its server says what to call, and judges what came of it. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { type DescMessage, fromJson, type JsonObject, type Message } from "@bufbuild/protobuf";
import {
  CatalogService,
  type Client,
  connect,
  ErrorReason,
  Failure,
  ProvisionedProductService,
  ProvisioningService,
  RecordService,
  status,
  toJson,
  WatchRecordResponseSchema,
} from "servicecatalog-grpc-client";

const ROOT = fileURLToPath(new URL("../../../", import.meta.url));
const PYTHON = process.env.SERVICECATALOG_PYTHON ?? `${ROOT}.venv/bin/python`;
const TOKEN_FIELDS = ["provisionToken", "updateToken", "idempotencyToken", "terminateToken"];

/** What is to be called. */
interface Row {
  address: string;
  method: string;
  request: JsonObject;
  metadata: Record<string, string>;
  /** In seconds. */
  deadline: number | null;
  repeat: boolean;
  wait: boolean;
}

/** What came of it, as the client shows it. */
interface Outcome {
  code: string;
  [more: string]: unknown;
}

test("conformance", async (t) => {
  assert.ok(existsSync(PYTHON), "run `make install` first");
  const server = spawn(PYTHON, [`${ROOT}tests/conformance_server.py`, "typescript"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const exit = once(server, "exit");
  try {
    const [line] = await once(createInterface(server.stdout), "line", { signal: AbortSignal.timeout(60_000) });
    const { url } = JSON.parse(line);
    for (const name of await get<string[]>(`${url}/rows`)) {
      await t.test(name, async () => {
        const outcome = await run(await post<Row>(`${url}/rows/${name}/begin`));
        const { problems } = await post<{ problems: string[] }>(`${url}/rows/${name}/end`, outcome);
        assert.deepEqual(problems, []);
      });
    }
  } finally {
    server.stdin.end();
  }
  assert.deepEqual(await exit, [0, null]);
});

async function run(row: Row): Promise<Outcome> {
  using client = connect(row.address, { plaintext: true });
  const options = { metadata: row.metadata, timeoutMs: row.deadline === null ? undefined : row.deadline * 1000 };
  if (row.wait) {
    return await outcomeOf(WatchRecordResponseSchema, client.wait(String(row.request.id), options));
  }
  const { method, call } = unaryCall(client, row.method);
  const request = fromJson(method.input, row.request);
  const outcome = await outcomeOf(method.output, call(request, options));
  if (row.repeat && outcome.code !== "OK") {
    const field = TOKEN_FIELDS.find((name) => name in request) ?? assert.fail("nothing to repeat safely");
    outcome.repeated = await outcomeOf(method.output, call({ ...request, [field]: outcome.token }, options));
  }
  return outcome;
}

/** Returns the client's own function for a method such as `servicecatalog.v1.CatalogService/SearchProducts`. */
function unaryCall(client: Client, fullName: string) {
  const services = [
    { descriptor: ProvisioningService, calls: client.provisioning },
    { descriptor: RecordService, calls: client.records },
    { descriptor: CatalogService, calls: client.catalog },
    { descriptor: ProvisionedProductService, calls: client.provisionedProducts },
  ];
  for (const { descriptor, calls } of services) {
    for (const method of descriptor.methods) {
      if (`${descriptor.typeName}/${method.name}` === fullName) {
        const call = Object.entries(calls).find(([name]) => name === method.localName)?.[1];
        return { method, call: call as (request: object, options: object) => Promise<Message> };
      }
    }
  }
  return assert.fail(`there is no ${fullName}`);
}

async function outcomeOf(schema: DescMessage, result: Promise<Message>): Promise<Outcome> {
  try {
    return { code: "OK", response: toJson(schema, await result) };
  } catch (error) {
    if (!(error instanceof Failure)) {
      throw error;
    }
    const { code, reason, message, violations, retryDelayMs, token } = error;
    return {
      code: status[code],
      reason: ErrorReason[reason],
      message,
      violations,
      retryDelay: retryDelayMs === undefined ? null : retryDelayMs / 1000,
      token: token ?? null,
    };
  }
}

async function get<Answer>(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, init);
  assert.ok(response.ok, `${url}: ${response.status}`);
  return (await response.json()) as Answer;
}

async function post<Answer>(url: string, body: unknown = {}): Promise<Answer> {
  return await get<Answer>(url, { method: "POST", body: JSON.stringify(body) });
}
