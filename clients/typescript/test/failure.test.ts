import assert from "node:assert/strict";
import { once } from "node:events";
import { type TestContext, test } from "node:test";
import { connect, ErrorReason, Failure, status } from "servicecatalog-grpc-client";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../dist/gen/google/rpc/error_details_pb.js";
import { type Handler, serve, statusOf } from "./server.js";

const DOMAIN = "servicecatalog-grpc";

/** Returns how a write fails that a server handles so. */
async function failureOf(t: TestContext, handler: Handler, request = {}, options = {}): Promise<Failure> {
  const { address } = await serve(t, handler);
  using client = connect(address, { plaintext: true });
  const error = await client.provisioning.provisionProduct(request, options).catch((error) => error);
  assert.ok(error instanceof Failure, `${error}`);
  return error;
}

function info(reason: string, metadata = {}, domain = DOMAIN): [typeof ErrorInfoSchema, Record<string, unknown>] {
  return [ErrorInfoSchema, { reason, domain, metadata }];
}

test("a failure says what the façade says", async (t) => {
  const metadata = { aws_operation: "ProvisionProduct", idempotency_token: "order-17" };
  const violations = [
    { field: "product", description: "is required" },
    { field: "tags[0].key", description: "is too long" },
  ];
  const failure = await failureOf(t, () => {
    throw statusOf(status.INVALID_ARGUMENT, "the request breaks 2 rules", [
      info("INVALID_REQUEST", metadata),
      [BadRequestSchema, { fieldViolations: violations }],
      [RetryInfoSchema, { retryDelay: { seconds: 1n, nanos: 500_000_000 } }],
    ]);
  });
  assert.equal(failure.code, status.INVALID_ARGUMENT);
  assert.equal(failure.message, "the request breaks 2 rules");
  assert.equal(failure.reason, ErrorReason.INVALID_REQUEST);
  assert.equal(failure.reasonName, "INVALID_REQUEST");
  assert.deepEqual(failure.violations, violations);
  assert.equal(failure.retryDelayMs, 1500);
  assert.equal(failure.token, "order-17");
  assert.deepEqual(failure.metadata, metadata);
});

test("a failure is an error, with gRPC's own as its cause and a stack that leads to the caller", async (t) => {
  const failure = await failureOf(t, () => {
    throw statusOf(status.NOT_FOUND, "no such product");
  });
  assert.ok(failure instanceof Error);
  assert.equal(String(failure), "Failure: no such product");
  assert.match(failure.stack ?? "", /^Failure: no such product\n(.*\n)*.*failureOf/);
  assert.deepEqual(
    Object.keys(failure).filter((key) => key === "name"),
    [],
  );
  assert.equal((failure.cause as { details?: string }).details, "no such product");
});

test("without details there is a code, a message and the token that was sent", async (t) => {
  let sent: unknown;
  const failure = await failureOf(t, ({ request }) => {
    sent = request.provisionToken;
    throw statusOf(status.UNKNOWN, "no healthy upstream");
  });
  assert.equal(failure.reason, ErrorReason.UNSPECIFIED);
  assert.equal(failure.reasonName, undefined);
  assert.deepEqual(failure.violations, []);
  assert.equal(failure.retryDelayMs, undefined);
  assert.deepEqual(failure.metadata, {});
  assert.equal(failure.token, sent);
});

test("a reason that is not known yet keeps its name", async (t) => {
  const failure = await failureOf(t, () => {
    throw statusOf(status.ABORTED, "", [info("SOMETHING_NEW")]);
  });
  assert.equal(failure.reason, ErrorReason.UNSPECIFIED);
  assert.equal(failure.reasonName, "SOMETHING_NEW");
});

test("the ErrorInfo of another domain is not the façade's", async (t) => {
  const failure = await failureOf(t, () => {
    throw statusOf(status.ABORTED, "", [info("THROTTLED", { idempotency_token: "theirs" }, "proxy.example.com")]);
  });
  assert.equal(failure.reason, ErrorReason.UNSPECIFIED);
  assert.equal(failure.reasonName, undefined);
  assert.notEqual(failure.token, "theirs");
});

test("details that are garbled take nothing else away", async (t) => {
  const failure = await failureOf(t, () => {
    throw statusOf(status.ABORTED, "in progress", Buffer.from("\xff\xff\xff no status at all", "latin1"));
  });
  assert.equal(failure.code, status.ABORTED);
  assert.equal(failure.message, "in progress");
  assert.equal(failure.reason, ErrorReason.UNSPECIFIED);
});

test("one detail that is garbled does not hide the others", async (t) => {
  const garbled = statusOf(status.ABORTED, "", [
    info("OPERATION_IN_PROGRESS"),
    [BadRequestSchema, { fieldViolations: [{ field: "garbled" }] }],
  ]);
  const [bytes] = garbled.metadata.get("grpc-status-details-bin") as Buffer[];
  assert.ok(bytes);
  bytes[bytes.indexOf("garbled") - 1] = 99; // the field's length
  const failure = await failureOf(t, () => {
    throw statusOf(status.ABORTED, "", bytes);
  });
  assert.equal(failure.reason, ErrorReason.OPERATION_IN_PROGRESS);
  assert.deepEqual(failure.violations, []);
});

test("the token is the initial metadata's where the failure has none", async (t) => {
  const failure = await failureOf(
    t,
    ({ sendMetadata }) => {
      sendMetadata({ "idempotency-token": "derived" });
      throw statusOf(status.UNAVAILABLE, "the connection broke");
    },
    {},
    { metadata: { "idempotency-key": "order-17" } },
  );
  assert.equal(failure.token, "derived");
});

test("there is no token where the façade derives it and nothing came back", async (t) => {
  const handler: Handler = () => {
    throw statusOf(status.UNKNOWN);
  };
  const failure = await failureOf(t, handler, {}, { metadata: { "idempotency-key": "order-17" } });
  assert.equal(failure.token, undefined);
});

test("a failure's token in the same request repeats the intent", async (t) => {
  const { address, attempts } = await serve(t, () => {
    if (attempts.length === 1) {
      throw statusOf(status.UNKNOWN, "", [info("OUTCOME_UNKNOWN")]);
    }
    return {};
  });
  using client = connect(address, { plaintext: true });
  const request = { provisionedProductName: "my-bucket" };
  const failure = await client.provisioning.provisionProduct(request).catch((error) => error);
  await client.provisioning.provisionProduct({ ...request, provisionToken: failure.token });
  assert.equal(attempts[0]?.request.provisionToken, attempts[1]?.request.provisionToken);
});

test("a deadline that passes is a failure with the token", async (t) => {
  const failure = await failureOf(t, () => new Promise(() => {}), { provisionToken: "order-17" }, { timeoutMs: 100 });
  assert.equal(failure.code, status.DEADLINE_EXCEEDED);
  assert.equal(failure.token, "order-17");
});

test("a signal cancels a call and is the cause", async (t) => {
  const controller = new AbortController();
  let cancelled: AbortSignal | undefined;
  const handler: Handler = (attempt) => {
    cancelled = attempt.cancelled;
    controller.abort(new Error("changed my mind"));
    return new Promise(() => {});
  };
  const failure = await failureOf(t, handler, { provisionToken: "order-17" }, { signal: controller.signal });
  assert.equal(failure.code, status.CANCELLED);
  assert.equal(failure.cause, controller.signal.reason);
  assert.equal(failure.token, "order-17");
  assert.ok(cancelled);
  if (!cancelled.aborted) {
    await once(cancelled, "abort");
  }
});

test("a signal that has aborted sends nothing", async (t) => {
  const { address, attempts } = await serve(t, () => ({}));
  using client = connect(address, { plaintext: true });
  const call = client.catalog.searchProducts({}, { signal: AbortSignal.abort() });
  await assert.rejects(call, { code: status.CANCELLED });
  assert.equal(attempts.length, 0);
});

test("a stream throws its failure after what it sent", async (t) => {
  const { address } = await serve(t, async function* () {
    yield { recordDetail: { recordId: "rec-1" } };
    throw statusOf(status.PERMISSION_DENIED, "", [info("RECORD_ACCESS_LOST")]);
  });
  using client = connect(address, { plaintext: true });
  const received: unknown[] = [];
  await assert.rejects(
    async () => {
      for await (const { recordDetail } of client.records.watchRecord({ id: "rec-1" })) {
        received.push(recordDetail?.recordId);
      }
    },
    { name: "Failure", reason: ErrorReason.RECORD_ACCESS_LOST, token: undefined },
  );
  assert.deepEqual(received, ["rec-1"]);
});

test("leaving a stream cancels it", async (t) => {
  const { address, attempts } = await serve(t, async function* ({ cancelled }) {
    yield {};
    await once(cancelled, "abort");
  });
  using client = connect(address, { plaintext: true });
  for await (const _ of client.records.watchRecord({ id: "rec-1" })) {
    break;
  }
  const cancelled = attempts[0]?.cancelled;
  assert.ok(cancelled);
  if (!cancelled.aborted) {
    await once(cancelled, "abort");
  }
});

test("a signal cancels a stream", async (t) => {
  const controller = new AbortController();
  const cause = new Error("changed my mind");
  const { address } = await serve(t, async function* ({ cancelled }) {
    yield {};
    await once(cancelled, "abort");
  });
  using client = connect(address, { plaintext: true });
  await assert.rejects(
    async () => {
      for await (const _ of client.records.watchRecord({ id: "rec-1" }, { signal: controller.signal })) {
        controller.abort(cause);
      }
    },
    { code: status.CANCELLED, cause },
  );
});
