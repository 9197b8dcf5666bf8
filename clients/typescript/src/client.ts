import {
  Client as Channel,
  type ChannelCredentials,
  type ChannelOptions,
  credentials,
  type Interceptor,
} from "@grpc/grpc-js";
import { type ServiceClient, serviceClient } from "./calls.js";
import { serviceConfig } from "./gen/service_config.js";
import { CatalogService } from "./gen/servicecatalog/v1/catalog_service_pb.js";
import { ProvisionedProductService } from "./gen/servicecatalog/v1/provisioned_product_service_pb.js";
import { ProvisioningService } from "./gen/servicecatalog/v1/provisioning_service_pb.js";
import { RecordService, type WatchRecordResponse } from "./gen/servicecatalog/v1/record_service_pb.js";
import { type WaitOptions, waitForRecord } from "./wait.js";

const DEFAULT_DEADLINE_MS = 30_000;

const CHANNEL_OPTIONS: ChannelOptions = {
  "grpc.service_config": JSON.stringify(serviceConfig),
  // gRPC itself would pause for up to two minutes between two attempts to connect, long after the façade is back.
  "grpc.max_reconnect_backoff_ms": 5_000,
  // So that a watch does not outlive a connection that died in silence; load balancers forget one after minutes.
  "grpc.keepalive_time_ms": 60_000,
  "grpc.keepalive_timeout_ms": 20_000,
};

/** How to reach the façade, and what every call gets. */
export interface ConnectOptions {
  /**
   * True for a connection without TLS, as to loopback, to a Unix socket or to a sidecar. Without it and without
   * `credentials` the connection is TLS, with the roots that Node trusts.
   */
  plaintext?: boolean | undefined;

  /** gRPC's own credentials, as `credentials.createSsl(…)` makes for a private CA or mTLS. Not with `plaintext`. */
  credentials?: ChannelCredentials | undefined;

  /**
   * The deadline, in milliseconds from its beginning, of each unary call that sets none: greater than zero, 30000 by
   * default. A stream and a `wait` have none by default.
   */
  defaultDeadlineMs?: number | undefined;

  /** gRPC's own options of the channel. They go before what this package sets: retries, reconnecting, keepalive. */
  channelOptions?: ChannelOptions | undefined;

  /** gRPC's own interceptors, the first outermost. They see each request with its token. */
  interceptors?: Interceptor[] | undefined;
}

/** The four services of a façade, over one channel. */
export interface Client extends Disposable {
  /** Creates and changes provisioned products. */
  readonly provisioning: ServiceClient<typeof ProvisioningService>;

  /** Tells how far the work behind a record has come. */
  readonly records: ServiceClient<typeof RecordService>;

  /** Finds what can be provisioned. */
  readonly catalog: ServiceClient<typeof CatalogService>;

  /** Finds, describes and terminates provisioned products. */
  readonly provisionedProducts: ServiceClient<typeof ProvisionedProductService>;

  /**
   * Waits until a record's status is SUCCEEDED or FAILED, however often the watch of it breaks, and returns its last
   * state, with all outputs or errors. A record that FAILED is no failure of the wait.
   *
   * Without a deadline it waits as long as it takes.
   *
   * @param recordId the record's identifier: `response.recordDetail?.recordId`
   * @throws {Failure} of code DEADLINE_EXCEEDED at the deadline, CANCELLED when the signal aborts, and any that another
   *   watch cannot mend, such as `RESOURCE_NOT_FOUND`
   */
  wait(recordId: string | undefined, options?: WaitOptions): Promise<WatchRecordResponse>;

  /** Closes the channel. `using` does so at the end of its block. */
  close(): void;
}

/**
 * Makes a client of the façade at an address. It connects at the first call, and again whenever the connection is lost.
 *
 * A write whose request has no token gets a random one, once, before its first attempt: whoever repeats the call on the
 * way repeats the same intent. A call that fails with UNAVAILABLE is repeated, up to five attempts in all. Each call
 * ends with a response or throws a {@link Failure}.
 *
 * @param address a target of gRPC: `HOST:PORT`, `unix:PATH`, `dns:///HOST:PORT`
 * @throws {TypeError} if both `plaintext` and `credentials` are given
 * @throws {RangeError} if `defaultDeadlineMs` is not greater than zero
 */
export function connect(address: string, options: ConnectOptions = {}): Client {
  const { plaintext = false, defaultDeadlineMs = DEFAULT_DEADLINE_MS, channelOptions, interceptors = [] } = options;
  if (plaintext && options.credentials) {
    throw new TypeError("plaintext and credentials exclude each other");
  }
  if (!(defaultDeadlineMs > 0)) {
    throw new RangeError(`defaultDeadlineMs must be greater than 0, and is ${defaultDeadlineMs}`);
  }
  const transport = options.credentials ?? (plaintext ? credentials.createInsecure() : credentials.createSsl());
  const channel = new Channel(address, transport, {
    ...CHANNEL_OPTIONS,
    ...channelOptions,
    interceptors,
  });
  const records = serviceClient(channel, RecordService, defaultDeadlineMs);
  return {
    provisioning: serviceClient(channel, ProvisioningService, defaultDeadlineMs),
    records,
    catalog: serviceClient(channel, CatalogService, defaultDeadlineMs),
    provisionedProducts: serviceClient(channel, ProvisionedProductService, defaultDeadlineMs),
    wait: (recordId, waitOptions) => waitForRecord(records, recordId, waitOptions),
    close: () => channel.close(),
    [Symbol.dispose]: () => channel.close(),
  };
}
