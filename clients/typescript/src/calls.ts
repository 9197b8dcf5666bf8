import {
  type DescMessage,
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type DescService,
  fromBinary,
  type Message,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { type Client as Channel, type CallOptions as GrpcCallOptions, Metadata } from "@grpc/grpc-js";
import { failureOf } from "./failure.js";
import { withToken } from "./tokens.js";

/** What one call may be given: gRPC's own options, and three more. */
export interface CallOptions extends GrpcCallOptions {
  /** How long the call may take, in milliseconds. Where gRPC's `deadline` is given too, the earlier one holds. */
  timeoutMs?: number | undefined;

  /** Cancels the call when it aborts: a {@link Failure} of code CANCELLED, whose cause is the signal's reason. */
  signal?: AbortSignal | undefined;

  /** What to send along, such as `{ "idempotency-key": "order-17" }`. */
  metadata?: Metadata | Readonly<Record<string, string>> | undefined;
}

/**
 * The calls of one service. A unary call returns a promise. A stream returns an async iterable: the call begins with the
 * iteration, and is cancelled when that is left early. Both throw a {@link Failure}.
 *
 * A request is an object literal, or a message made by `create` of `@bufbuild/protobuf`. It is never changed.
 */
export type ServiceClient<Service extends DescService> = {
  readonly [Name in keyof Service["method"]]: Service["method"][Name] extends DescMethodUnary<infer I, infer O>
    ? (request: MessageInitShape<I>, options?: CallOptions) => Promise<MessageShape<O>>
    : Service["method"][Name] extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageInitShape<I>, options?: CallOptions) => AsyncIterable<MessageShape<O>>
      : never;
};

/** A request before its type is known. */
type Request = MessageInitShape<DescMessage>;

/** Returns the calls of a service on this channel. */
export function serviceClient<Service extends DescService>(
  channel: Channel,
  service: Service,
  defaultDeadlineMs: number,
): ServiceClient<Service> {
  const calls = service.methods.map((method) => [
    method.localName,
    method.methodKind === "unary"
      ? (request: Request, options: CallOptions = {}) => unary(channel, method, request, options, defaultDeadlineMs)
      : (request: Request, options: CallOptions = {}) => serverStream(channel, method, request, options),
  ]);
  return Object.fromEntries(calls);
}

/**
 * Returns when a call ends, in milliseconds since 1970.
 *
 * @param defaultMs how long a call takes at most whose options do not say it
 * @throws {RangeError} if the options say it with something that is no time
 */
export function deadlineOf({ deadline, timeoutMs }: CallOptions, defaultMs = Infinity): number {
  if (deadline === undefined && timeoutMs === undefined) {
    return Date.now() + defaultMs;
  }
  const end = Math.min(Number(deadline ?? Infinity), Date.now() + (timeoutMs ?? Infinity));
  if (Number.isNaN(end)) {
    throw new RangeError("deadline and timeoutMs must be times, not NaN");
  }
  return end;
}

async function unary(
  channel: Channel,
  method: DescMethod,
  request: Request,
  options: CallOptions,
  defaultDeadlineMs: number,
): Promise<Message> {
  const { args, token } = prepare(method, request, options, defaultDeadlineMs);
  let tokenInForce = token;
  let release = () => {};
  try {
    // Awaited here, and not only returned, so that the stack of a Failure leads to the caller.
    return await new Promise<Message>((resolve, reject) => {
      const call = channel.makeUnaryRequest(...args, (error, response) =>
        response ? resolve(response) : reject(error),
      );
      call.on("metadata", (initial: Metadata) => {
        tokenInForce = initial.get("idempotency-token")[0]?.toString() ?? token;
      });
      release = cancelOn(options.signal, call);
    });
  } catch (error) {
    throw failureOf(error, tokenInForce, options.signal);
  } finally {
    release();
  }
}

async function* serverStream(
  channel: Channel,
  method: DescMethod,
  request: Request,
  options: CallOptions,
): AsyncGenerator<Message> {
  const call = channel.makeServerStreamRequest(...prepare(method, request, options).args);
  // An iteration that is left early may have nobody listen to how the cancelled call ends, and Node would end with it.
  call.on("error", () => {});
  const release = cancelOn(options.signal, call);
  try {
    yield* call;
  } catch (error) {
    throw failureOf(error, undefined, options.signal);
  } finally {
    release();
    call.cancel();
  }
}

/** Returns what gRPC takes to make the call, and the token of its request. */
function prepare(method: DescMethod, request: Request, options: CallOptions, defaultDeadlineMs?: number) {
  const { timeoutMs, signal, metadata: given, ...grpcOptions } = options;
  const metadata = given instanceof Metadata ? given : toMetadata(given);
  const { message, token } = withToken(method.input, request, metadata);
  const args = [
    `/${method.parent.typeName}/${method.name}`,
    (sent: Message) => Buffer.from(toBinary(method.input, sent)),
    (received: Buffer): Message => fromBinary(method.output, received),
    message,
    metadata,
    { ...grpcOptions, deadline: deadlineOf(options, defaultDeadlineMs) },
  ] as const;
  return { args, token };
}

function toMetadata(entries: Readonly<Record<string, string>> = {}): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(entries)) {
    metadata.set(key, value);
  }
  return metadata;
}

/** Cancels the call when the signal aborts, until the returned function is called. */
function cancelOn(signal: AbortSignal | undefined, call: { cancel(): void }): () => void {
  const cancel = () => call.cancel();
  if (signal?.aborted) {
    cancel();
  }
  signal?.addEventListener("abort", cancel, { once: true });
  return () => signal?.removeEventListener("abort", cancel);
}
