import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";
import type { StatusObject } from "@grpc/grpc-js";
import { connect, ErrorReason, Failure, RecordStatus, status } from "servicecatalog-grpc-client";
import { ErrorInfoSchema, RetryInfoSchema } from "../dist/gen/google/rpc/error_details_pb.js";
import { type Handler, serve, statusOf } from "./server.js";

/** Without gRPC's own retries, so that one watch is one attempt. */
const OPTIONS = { plaintext: true, channelOptions: { "grpc.enable_retries": 0 } };

const { CREATED, IN_PROGRESS, SUCCEEDED, FAILED } = RecordStatus;

function state(status: RecordStatus) {
  return { recordDetail: { recordId: "rec-1", status }, recordOutputs: [{ outputKey: "Arn" }] };
}

function because(code: status, reason: ErrorReason, retryDelayMs = 0) {
  return statusOf(code, ErrorReason[reason], [
    [ErrorInfoSchema, { domain: "servicecatalog-grpc", reason: ErrorReason[reason] }],
    [RetryInfoSchema, retryDelayMs ? { retryDelay: { seconds: 0n, nanos: retryDelayMs * 1_000_000 } } : {}],
  ]);
}

/** Sends what it is given, watch after watch: states, and what breaks the watch. A watch of nothing more goes on. */
function watches(...script: (RecordStatus | StatusObject)[][]): Handler {
  return async function* ({ cancelled }) {
    for (const step of script.shift() ?? [IN_PROGRESS]) {
      if (typeof step === "object") {
        throw step;
      }
      yield state(step);
    }
    if (script.length === 0) {
      await once(cancelled, "abort");
    }
  };
}

for (const end of [SUCCEEDED, FAILED]) {
  test(`a wait returns the record that ${RecordStatus[end]}`, async (t) => {
    const { address, attempts } = await serve(t, watches([CREATED, IN_PROGRESS, end]));
    using client = connect(address, OPTIONS);
    const seen: unknown[] = [];
    const last = await client.wait("rec-1", { onChange: ({ recordDetail }) => seen.push(recordDetail?.status) });
    assert.equal(last.recordDetail?.status, end);
    assert.equal(last.recordOutputs[0]?.outputKey, "Arn");
    assert.deepEqual(seen, [CREATED, IN_PROGRESS, end]);
    assert.equal(attempts[0]?.request.id, "rec-1");
    assert.equal(attempts[0]?.deadline, Number.POSITIVE_INFINITY);
  });
}

for (const broken of [
  because(status.UNAVAILABLE, ErrorReason.SHUTTING_DOWN),
  because(status.UNAVAILABLE, ErrorReason.UPSTREAM_UNREACHABLE),
  because(status.UNAVAILABLE, ErrorReason.UPSTREAM_CREDENTIALS),
  because(status.UNAVAILABLE, ErrorReason.NOT_YET_CONSISTENT),
  because(status.RESOURCE_EXHAUSTED, ErrorReason.THROTTLED),
  because(status.RESOURCE_EXHAUSTED, ErrorReason.OVERLOADED),
  because(status.DEADLINE_EXCEEDED, ErrorReason.DEADLINE_EXCEEDED),
  statusOf(status.UNAVAILABLE),
  statusOf(status.UNKNOWN),
  statusOf(status.INTERNAL),
  statusOf(status.CANCELLED),
  statusOf(status.DEADLINE_EXCEEDED),
  statusOf(status.ABORTED),
]) {
  test(`a wait goes on after ${status[broken.code]} ${broken.details}`, async (t) => {
    const { address, attempts } = await serve(t, watches([IN_PROGRESS, broken], [SUCCEEDED]));
    using client = connect(address, OPTIONS);
    const last = await client.wait("rec-1", { timeoutMs: 10_000 });
    assert.equal(last.recordDetail?.status, SUCCEEDED);
    assert.equal(attempts.length, 2);
  });
}

test("a wait goes on after a watch that ends before the record", async (t) => {
  const { address, attempts } = await serve(t, watches([CREATED], [], [SUCCEEDED]));
  using client = connect(address, OPTIONS);
  assert.equal((await client.wait("rec-1")).recordDetail?.status, SUCCEEDED);
  assert.equal(attempts.length, 3);
});

for (const final of [
  because(status.INVALID_ARGUMENT, ErrorReason.INVALID_REQUEST),
  because(status.NOT_FOUND, ErrorReason.RESOURCE_NOT_FOUND),
  because(status.PERMISSION_DENIED, ErrorReason.RECORD_ACCESS_LOST),
  because(status.UNKNOWN, ErrorReason.UNMAPPED_AWS_ERROR),
  because(status.INTERNAL, ErrorReason.INTERNAL),
  statusOf(status.UNIMPLEMENTED),
  statusOf(status.UNAUTHENTICATED),
  statusOf(status.RESOURCE_EXHAUSTED),
]) {
  test(`a wait ends with ${status[final.code]} ${final.details}`, async (t) => {
    const { address, attempts } = await serve(t, watches([IN_PROGRESS, final]));
    using client = connect(address, OPTIONS);
    await assert.rejects(client.wait("rec-1"), { name: "Failure", code: final.code, message: final.details });
    assert.equal(attempts.length, 1);
  });
}

test("pauses grow, and begin anew after a message", async (t) => {
  const times: number[] = [];
  const handle = watches(
    [statusOf(status.UNAVAILABLE)],
    [statusOf(status.UNAVAILABLE)],
    [IN_PROGRESS, statusOf(status.UNAVAILABLE)],
    [SUCCEEDED],
  );
  const { address } = await serve(t, (attempt) => {
    times.push(performance.now());
    return handle(attempt);
  });
  using client = connect(address, OPTIONS);
  await client.wait("rec-1");
  const [first, second, third] = times.slice(1).map((time, index) => time - (times[index] ?? 0));
  within(first, 100, 200);
  within(second, 200, 400);
  within(third, 100, 200);
});

test("the façade's delay goes before the pause", async (t) => {
  const { address } = await serve(
    t,
    watches([because(status.RESOURCE_EXHAUSTED, ErrorReason.OVERLOADED, 500)], [SUCCEEDED]),
  );
  using client = connect(address, OPTIONS);
  const began = performance.now();
  await client.wait("rec-1");
  within(performance.now() - began, 500, 500);
});

const OVERLOADED = because(status.RESOURCE_EXHAUSTED, ErrorReason.OVERLOADED, 900);

for (const { when, script } of [
  { when: "while it watches", script: [[IN_PROGRESS]] },
  { when: "while it pauses", script: [[OVERLOADED]] },
  { when: "while nothing can be reached", script: Array(9).fill([statusOf(status.UNAVAILABLE)]) },
]) {
  test(`a wait ends at its deadline ${when}`, async (t) => {
    const { address, attempts } = await serve(t, watches(...script));
    using client = connect(address, OPTIONS);
    const began = performance.now();
    await assert.rejects(client.wait("rec-1", { timeoutMs: 400 }), {
      name: "Failure",
      code: status.DEADLINE_EXCEEDED,
      reason: ErrorReason.UNSPECIFIED,
    });
    within(performance.now() - began, 400, 400);
    assert.ok((attempts[0]?.deadline ?? 0) <= Date.now() + 50, "the watch has the deadline of the wait");
  });

  test(`a signal ends a wait ${when}`, async (t) => {
    const { address } = await serve(t, watches(...script));
    using client = connect(address, OPTIONS);
    const signal = AbortSignal.timeout(300);
    const began = performance.now();
    await assert.rejects(client.wait("rec-1", { signal }), (error) => {
      assert.ok(error instanceof Failure);
      assert.equal(error.code, status.CANCELLED);
      assert.equal(error.cause, signal.reason);
      return true;
    });
    within(performance.now() - began, 300, 300);
  });
}

test("a wait survives a server that goes away and comes back", async (t) => {
  const first = await serve(t, watches([CREATED]));
  using client = connect(first.address, { plaintext: true });
  const waiting = client.wait("rec-1", { timeoutMs: 30_000, onChange: () => first.stop() });
  await new Promise((resolve) => setTimeout(resolve, 500));
  await serve(t, watches([SUCCEEDED]), first.address);
  assert.equal((await waiting).recordDetail?.status, SUCCEEDED);
});

test("what an observer throws ends the wait", async (t) => {
  const { address } = await serve(t, watches([CREATED]));
  using client = connect(address, OPTIONS);
  const onChange = () => {
    throw new TypeError("of the observer");
  };
  await assert.rejects(client.wait("rec-1", { onChange }), TypeError);
});

/** Timers may be a little early, and this machine may be busy. */
function within(ms = Number.NaN, least: number, most: number): void {
  assert.ok(ms >= least - 5 && ms <= most + 400, `${ms} ms is not within ${least} and ${most} ms`);
}
