import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import { type Any, anyUnpack, durationMs } from "@bufbuild/protobuf/wkt";
import { type ServiceError, status } from "@grpc/grpc-js";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";
import { ErrorReason, ErrorReasonSchema } from "./gen/servicecatalog/v1/error_reason_pb.js";

const DOMAIN = "servicecatalog-grpc";

/** A field of a request that breaks a rule. */
export interface Violation {
  /** Its path in the contract, such as `provisioning_parameters[0].key`; empty where the description is of several. */
  readonly field: string;

  /** Which rule it breaks. */
  readonly description: string;
}

/** What a {@link Failure} may know beside its code and message. */
export type FailureDetails = {
  [Name in "reason" | "reasonName" | "violations" | "retryDelayMs" | "token" | "metadata"]?: Failure[Name] | undefined;
};

/** A call that failed. Its code says what to do, its reason says why. */
export class Failure extends Error {
  /** gRPC's code; `status[failure.code]` is its name. */
  readonly code: status;

  /**
   * Why the façade failed the call. UNSPECIFIED where gRPC or a proxy made the failure, so that what happened is unknown,
   * and where this package does not know the reason yet: `reasonName` has it then.
   */
  readonly reason: ErrorReason;

  /** The reason as the façade sent it, such as `OUTCOME_UNKNOWN`; undefined where it sent none. */
  readonly reasonName: string | undefined;

  /** The fields of the request that break a rule, as many as the façade could send. */
  readonly violations: readonly Violation[];

  /** How long to wait before a repeat, in milliseconds; undefined where the façade did not say. */
  readonly retryDelayMs: number | undefined;

  /**
   * The idempotency token in force. The same request with this in its token field is a repeat of the same intent, which
   * finds out what happened and never acts twice. Undefined for a read, and where the metadata of the call had a key
   * from which the façade derives the token and the answer did not arrive.
   */
  readonly token: string | undefined;

  /** What else the façade sent of these: `aws_operation`, `aws_error_code`, `aws_request_id`, `idempotency_token`. */
  readonly metadata: Readonly<Record<string, string>>;

  /**
   * @param message what went wrong, in the words of AWS, the façade or gRPC
   * @param options the cause: gRPC's `ServiceError`, or the reason of the signal that cancelled the call
   */
  constructor(code: status, message: string, details: FailureDetails = {}, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.reason = details.reason ?? ErrorReason.UNSPECIFIED;
    this.reasonName = details.reasonName;
    this.violations = details.violations ?? [];
    this.retryDelayMs = details.retryDelayMs;
    this.token = details.token;
    this.metadata = details.metadata ?? {};
  }

  static {
    // On the prototype, as the names of JavaScript's own errors are, so that it is no property to print.
    Failure.prototype.name = "Failure";
  }
}

/**
 * Returns the failure that gRPC's error stands for, and any other error as it is.
 *
 * @param token the idempotency token in force as far as it is known without the details of the failure
 * @param signal what may have cancelled the call
 */
export function failureOf(error: unknown, token: string | undefined, signal: AbortSignal | undefined): unknown {
  if (!isServiceError(error)) {
    return error;
  }
  const details = detailsOf(error);
  const info = unpack(details, ErrorInfoSchema).find(({ domain }) => domain === DOMAIN);
  const delay = unpack(details, RetryInfoSchema)[0]?.retryDelay;
  const cancelled = error.code === status.CANCELLED && signal?.aborted;
  return new Failure(
    error.code,
    error.details,
    {
      reason: info && reasonOf(info.reason),
      reasonName: info?.reason || undefined,
      violations: unpack(details, BadRequestSchema).flatMap(({ fieldViolations }) =>
        fieldViolations.map(({ field, description }) => ({ field, description })),
      ),
      retryDelayMs: delay && durationMs(delay),
      token: info?.metadata.idempotency_token || token,
      metadata: info?.metadata,
    },
    { cause: cancelled ? signal.reason : error },
  );
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && "metadata" in error;
}

function reasonOf(name: string): ErrorReason | undefined {
  return ErrorReasonSchema.values.find((value) => value.name === `ERROR_REASON_${name}`)?.number;
}

/** Returns the details of the error's `google.rpc.Status`; none where there is no such status or it is garbled. */
function detailsOf(error: ServiceError): Any[] {
  const [bytes] = error.metadata.get("grpc-status-details-bin");
  return (Buffer.isBuffer(bytes) && attempt(() => fromBinary(StatusSchema, bytes).details)) || [];
}

function unpack<Desc extends DescMessage>(details: Any[], schema: Desc): MessageShape<Desc>[] {
  return details.flatMap((detail) => attempt(() => anyUnpack(detail, schema)) ?? []);
}

/** A failure that cannot be read in full must not become another one. */
function attempt<Result>(read: () => Result): Result | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
