import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { InterceptingCall, type Interceptor } from "@grpc/grpc-js";
import { connect, credentials, Failure, status } from "servicecatalog-grpc-client";
import { serve, statusOf } from "./server.js";

const ADDRESS = "127.0.0.1:1";

test("plaintext and credentials exclude each other", () => {
  const both = { plaintext: true, credentials: credentials.createInsecure() };
  assert.throws(() => connect(ADDRESS, both), TypeError);
});

for (const defaultDeadlineMs of [0, -1, Number.NaN]) {
  test(`a default deadline of ${defaultDeadlineMs} ms is refused`, () => {
    assert.throws(() => connect(ADDRESS, { plaintext: true, defaultDeadlineMs }), RangeError);
  });
}

test("a connection is TLS unless it is said to be plaintext", async (t) => {
  const server = createServer().listen(0, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  using client = connect(`127.0.0.1:${(server.address() as AddressInfo).port}`, { defaultDeadlineMs: 500 });
  const call = client.catalog.searchProducts({});
  const [socket] = (await once(server, "connection")) as [Socket];
  const [bytes] = (await once(socket, "data")) as [Buffer];
  assert.equal(bytes[0], 0x16, "the content type of a TLS handshake");
  socket.destroy();
  await assert.rejects(call, Failure);
});

test("a Unix socket is an address", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "servicecatalog-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const { address } = await serve(t, () => ({ nextPageToken: "2" }), `unix:${join(directory, "socket")}`);
  using client = connect(address, { plaintext: true });
  assert.equal((await client.catalog.searchProducts({})).nextPageToken, "2");
});

test("gRPC's credentials are taken", async (t) => {
  const { address } = await serve(t, () => ({}));
  using client = connect(address, { credentials: credentials.createInsecure() });
  await client.catalog.searchProducts({});
});

test("each service has its calls", async (t) => {
  const { address, attempts } = await serve(t, () => ({}));
  using client = connect(address, { plaintext: true });
  await client.provisioning.provisionProduct({});
  await client.records.describeRecord({});
  await client.catalog.describeProduct({});
  await client.provisionedProducts.terminateProvisionedProduct({});
  assert.deepEqual(
    attempts.map(({ path }) => path),
    [
      "/servicecatalog.v1.ProvisioningService/ProvisionProduct",
      "/servicecatalog.v1.RecordService/DescribeRecord",
      "/servicecatalog.v1.CatalogService/DescribeProduct",
      "/servicecatalog.v1.ProvisionedProductService/TerminateProvisionedProduct",
    ],
  );
});

const IN_20_SECONDS = new Date(Date.now() + 20_000);

for (const { name, connected = {}, called = {}, expectedMs } of [
  { name: "30 s by default", expectedMs: 30_000 },
  { name: "the client's default", connected: { defaultDeadlineMs: 5_000 }, expectedMs: 5_000 },
  { name: "the call's timeout", called: { timeoutMs: 40_000 }, expectedMs: 40_000 },
  { name: "the call's deadline", called: { deadline: IN_20_SECONDS }, expectedMs: 20_000 },
  { name: "the earlier of both", called: { deadline: IN_20_SECONDS, timeoutMs: 10_000 }, expectedMs: 10_000 },
  { name: "none where the call says so", called: { timeoutMs: Number.POSITIVE_INFINITY }, expectedMs: Infinity },
]) {
  test(`a unary call's deadline is ${name}`, async (t) => {
    const { address, attempts } = await serve(t, () => ({}));
    using client = connect(address, { plaintext: true, ...connected });
    await client.catalog.searchProducts({}, called);
    const ms = (attempts[0]?.deadline ?? 0) - Date.now();
    assert.ok(ms === expectedMs || (ms > expectedMs - 4_000 && ms <= expectedMs + 100), `${ms} ms`);
  });
}

test("a watch has no deadline by default", async (t) => {
  const { address, attempts } = await serve(t, async function* () {});
  using client = connect(address, { plaintext: true });
  for await (const _ of client.records.watchRecord({ id: "rec-1" })) {
    assert.fail("the server sent nothing");
  }
  assert.equal(attempts[0]?.deadline, Number.POSITIVE_INFINITY);
});

test("a deadline that is no time is refused", async () => {
  using client = connect(ADDRESS, { plaintext: true });
  await assert.rejects(client.catalog.searchProducts({}, { timeoutMs: Number.NaN }), RangeError);
});

test("interceptors see the request with its token", async (t) => {
  const seen: unknown[] = [];
  const interceptor: Interceptor = (options, nextCall) =>
    new InterceptingCall(nextCall(options), {
      sendMessage: (message, next) => {
        seen.push(message.provisionToken);
        next(message);
      },
    });
  const { address, attempts } = await serve(t, () => ({}));
  using client = connect(address, { plaintext: true, interceptors: [interceptor] });
  await client.provisioning.provisionProduct({});
  assert.match(String(seen[0]), /^[0-9a-f-]{36}$/);
  assert.equal(attempts[0]?.request.provisionToken, seen[0]);
});

test("metadata goes along", async (t) => {
  const { address, attempts } = await serve(t, () => ({}));
  using client = connect(address, { plaintext: true });
  await client.catalog.searchProducts({}, { metadata: { "x-team": "orders" } });
  assert.equal(attempts[0]?.metadata["x-team"], "orders");
});

test("UNAVAILABLE is repeated, up to five attempts in all", async (t) => {
  const { address, attempts } = await serve(t, () => {
    throw statusOf(status.UNAVAILABLE, "nothing happened");
  });
  using client = connect(address, { plaintext: true });
  await assert.rejects(client.catalog.searchProducts({}), { code: status.UNAVAILABLE, message: "nothing happened" });
  assert.equal(attempts.length, 5);
});

test("gRPC's channel options go before the retry policy", async (t) => {
  const { address, attempts } = await serve(t, () => {
    throw statusOf(status.UNAVAILABLE);
  });
  using client = connect(address, { plaintext: true, channelOptions: { "grpc.enable_retries": 0 } });
  await assert.rejects(client.catalog.searchProducts({}), { code: status.UNAVAILABLE });
  assert.equal(attempts.length, 1);
});

for (const code of [status.RESOURCE_EXHAUSTED, status.UNKNOWN, status.ABORTED, status.INTERNAL]) {
  test(`${status[code]} is not repeated`, async (t) => {
    const { address, attempts } = await serve(t, () => {
      throw statusOf(code);
    });
    using client = connect(address, { plaintext: true });
    await assert.rejects(client.provisioning.provisionProduct({}), { code });
    assert.equal(attempts.length, 1);
  });
}

test("a client that is closed makes no more calls", async (t) => {
  const { address, attempts } = await serve(t, () => ({}));
  const client = connect(address, { plaintext: true });
  client.close();
  await assert.rejects(client.catalog.searchProducts({}), /shut down/);
  assert.equal(attempts.length, 0);
});
