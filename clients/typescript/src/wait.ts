import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { type CallOptions, deadlineOf, type ServiceClient } from "./calls.js";
import { Failure } from "./failure.js";
import { ErrorReason } from "./gen/servicecatalog/v1/error_reason_pb.js";
import { RecordStatus } from "./gen/servicecatalog/v1/record_pb.js";
import type { RecordService, WatchRecordResponse } from "./gen/servicecatalog/v1/record_service_pb.js";

const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 5_000;

/** The façade's reasons that the next watch may not meet, besides those of UNAVAILABLE. */
const PASSING_REASONS = new Set([ErrorReason.THROTTLED, ErrorReason.OVERLOADED, ErrorReason.DEADLINE_EXCEEDED]);

/** The codes with which gRPC and proxies end a call when a connection breaks or a server goes away. */
const PASSING_CODES = new Set([
  status.UNKNOWN,
  status.INTERNAL,
  status.CANCELLED,
  status.DEADLINE_EXCEEDED,
  status.ABORTED,
]);

/** What a wait may be given. Its deadline bounds all of the wait. */
export interface WaitOptions extends CallOptions {
  /** Gets each state of the record on the way, the last one too. After a watch broke, a state may come again. */
  onChange?: ((state: WatchRecordResponse) => void) | undefined;
}

/** Follows the record to its end, over as many watches as that takes. */
export async function waitForRecord(
  records: ServiceClient<typeof RecordService>,
  recordId: string | undefined,
  options: WaitOptions = {},
): Promise<WatchRecordResponse> {
  const { onChange, timeoutMs, ...callOptions } = options;
  const deadline = deadlineOf(options);
  let pauseMs = FIRST_PAUSE_MS;
  for (;;) {
    let failure: Failure | undefined;
    try {
      for await (const state of records.watchRecord({ id: recordId ?? "" }, { ...callOptions, deadline })) {
        pauseMs = FIRST_PAUSE_MS;
        onChange?.(state);
        if (hasEnded(state)) {
          return state;
        }
      }
    } catch (error) {
      if (!(error instanceof Failure) || !passes(error) || callOptions.signal?.aborted) {
        throw error;
      }
      failure = error;
    }
    const jitteredMs = pauseMs * (1 - Math.random() / 2);
    await pause(failure?.retryDelayMs ?? jitteredMs, deadline, failure, callOptions.signal);
    pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
  }
}

function hasEnded({ recordDetail }: WatchRecordResponse): boolean {
  return recordDetail?.status === RecordStatus.SUCCEEDED || recordDetail?.status === RecordStatus.FAILED;
}

function passes(failure: Failure): boolean {
  if (failure.code === status.UNAVAILABLE) {
    return true;
  }
  return failure.reasonName === undefined ? PASSING_CODES.has(failure.code) : PASSING_REASONS.has(failure.reason);
}

/** Waits for a while, but not beyond the deadline, where the wait for the record ends. */
async function pause(
  ms: number,
  deadline: number,
  cause: Failure | undefined,
  signal: AbortSignal | undefined,
): Promise<void> {
  const left = deadline - Date.now();
  try {
    await sleep(Math.min(ms, left), undefined, { signal });
  } catch (error) {
    throw new Failure(status.CANCELLED, "the wait was cancelled", {}, { cause: signal?.reason ?? error });
  }
  if (left <= ms) {
    throw new Failure(status.DEADLINE_EXCEEDED, "the deadline passed before the record ended", {}, { cause });
  }
}
