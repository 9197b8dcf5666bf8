import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Client,
  connect,
  create,
  Metadata,
  ProvisionProductRequestSchema,
  status,
} from "servicecatalog-grpc-client";
import { serve, statusOf } from "./server.js";

const RANDOM = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

type Call = (client: Client, request: object) => Promise<unknown>;

const WRITES: { field: string; write: Call }[] = [
  { field: "provisionToken", write: (client, request) => client.provisioning.provisionProduct(request) },
  { field: "updateToken", write: (client, request) => client.provisioning.updateProvisionedProduct(request) },
  {
    field: "idempotencyToken",
    write: (client, request) => client.provisioning.updateProvisionedProductProperties(request),
  },
  {
    field: "terminateToken",
    write: (client, request) => client.provisionedProducts.terminateProvisionedProduct(request),
  },
];

for (const { field, write } of WRITES) {
  test(`${field} is filled in, anew for each call`, async (t) => {
    const { address, attempts } = await serve(t, () => ({}));
    using client = connect(address, { plaintext: true });
    const request = Object.freeze({ acceptLanguage: "en" });
    await write(client, request);
    await write(client, request);
    const tokens = attempts.map(({ request }) => String(request[field]));
    assert.match(tokens[0] ?? "", RANDOM);
    assert.match(tokens[1] ?? "", RANDOM);
    assert.notEqual(tokens[0], tokens[1]);
  });

  test(`${field} stays as the request has it`, async (t) => {
    const { address, attempts } = await serve(t, () => ({}));
    using client = connect(address, { plaintext: true });
    await write(client, { [field]: "order-17" });
    assert.equal(attempts[0]?.request[field], "order-17");
  });
}

test("a message is left as it is, so that it can be the template of the next intent", async (t) => {
  const { address, attempts } = await serve(t, () => ({}));
  using client = connect(address, { plaintext: true });
  const template = create(ProvisionProductRequestSchema, {
    provisionedProductName: "my-bucket",
    provisioningParameters: [{ key: "BucketName", value: "my-first-bucket" }],
  });
  const before = structuredClone(template);
  await client.provisioning.provisionProduct(template);
  await client.provisioning.provisionProduct(template);
  assert.deepEqual(template, before);
  assert.notEqual(attempts[0]?.request.provisionToken, attempts[1]?.request.provisionToken);
  assert.deepEqual({ ...attempts[0]?.request, provisionToken: "" }, before);
});

for (const key of ["idempotency-key", "x-request-id", "Idempotency-Key"]) {
  test(`nothing is filled in beside ${key} in the metadata`, async (t) => {
    const { address, attempts } = await serve(t, () => ({}));
    using client = connect(address, { plaintext: true });
    const metadata = new Metadata();
    metadata.set(key, "order-17");
    await client.provisioning.provisionProduct({}, { metadata });
    await client.provisioning.provisionProduct({}, { metadata: { [key]: "order-17" } });
    assert.deepEqual(
      attempts.map(({ request }) => request.provisionToken),
      ["", ""],
    );
  });
}

test("a page's token is none of these", async (t) => {
  const { address, attempts } = await serve(t, () => ({}));
  using client = connect(address, { plaintext: true });
  await client.records.listRecordHistory({});
  assert.equal(attempts[0]?.request.pageToken, "");
});

test("every attempt of a call has the same token", async (t) => {
  const { address, attempts } = await serve(t, () => {
    if (attempts.length < 3) {
      throw statusOf(status.UNAVAILABLE);
    }
    return {};
  });
  using client = connect(address, { plaintext: true });
  await client.provisioning.provisionProduct({});
  const tokens = attempts.map(({ request }) => request.provisionToken);
  assert.equal(tokens.length, 3);
  assert.equal(new Set(tokens).size, 1);
  assert.match(String(tokens[0]), RANDOM);
});
