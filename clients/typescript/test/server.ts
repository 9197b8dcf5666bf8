/** A façade of the tests' own, in this process, that answers as each test says. */

import type { TestContext } from "node:test";
import { create, type DescMessage, type DescService, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import {
  CatalogService,
  ProvisionedProductService,
  ProvisioningService,
  RecordService,
} from "servicecatalog-grpc-client";
import { StatusSchema } from "../dist/gen/google/rpc/status_pb.js";

/** One attempt of a call, as the server sees it. */
export interface Attempt {
  readonly path: string;
  readonly request: Record<string, unknown>;
  readonly metadata: Record<string, grpc.MetadataValue>;
  /** When the attempt's deadline is, in milliseconds since 1970. */
  readonly deadline: number;
  /** Aborts when the client cancels the attempt. */
  readonly cancelled: AbortSignal;
  /** Sends initial metadata, by which the client's gRPC is committed to this attempt. */
  sendMetadata(entries: Record<string, string>): void;
}

/** Returns a response, or an async iterable of them, as object literals; throws what `statusOf` returns. */
export type Handler = (attempt: Attempt) => unknown;

export interface Server {
  readonly address: string;
  readonly attempts: Attempt[];
  /** Goes away at once, with all its connections. */
  stop(): void;
}

/** Starts a server that ends with the test. */
export async function serve(t: TestContext, handler: Handler, address = "127.0.0.1:0"): Promise<Server> {
  const server = new grpc.Server();
  const attempts: Attempt[] = [];
  const handle: Handler = (attempt) => {
    attempts.push(attempt);
    return handler(attempt);
  };
  for (const service of [CatalogService, ProvisionedProductService, ProvisioningService, RecordService]) {
    addService(server, service, handle);
  }
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  t.after(() => server.forceShutdown());
  return {
    address: address.startsWith("unix:") ? address : `127.0.0.1:${port}`,
    attempts,
    stop: () => server.forceShutdown(),
  };
}

/** Returns what a handler throws to fail the call, with these messages or bytes as its details. */
export function statusOf(
  code: grpc.status,
  message = "",
  details: [DescMessage, Record<string, unknown>][] | Uint8Array = [],
): grpc.StatusObject {
  const metadata = new grpc.Metadata();
  if (details instanceof Uint8Array) {
    metadata.set("grpc-status-details-bin", Buffer.from(details));
  } else if (details.length > 0) {
    const packed = details.map(([schema, init]) => anyPack(schema, create(schema, init)));
    const status = create(StatusSchema, { code, message, details: packed });
    metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, status)));
  }
  return { code, details: message, metadata };
}

function addService(server: grpc.Server, service: DescService, handle: Handler): void {
  const definition: Record<string, grpc.MethodDefinition<Message, Message>> = {};
  const implementation: grpc.UntypedServiceImplementation = {};
  for (const method of service.methods) {
    const path = `/${service.typeName}/${method.name}`;
    const serialize = (schema: DescMessage) => (message: Message) => Buffer.from(toBinary(schema, message));
    const deserialize = (schema: DescMessage) => (bytes: Buffer) => fromBinary(schema, bytes);
    definition[method.localName] = {
      path,
      requestStream: false,
      responseStream: method.methodKind === "server_streaming",
      requestSerialize: serialize(method.input),
      requestDeserialize: deserialize(method.input),
      responseSerialize: serialize(method.output),
      responseDeserialize: deserialize(method.output),
    };
    const respond = (init: unknown) => create(method.output, init as Record<string, unknown>);
    const unary: grpc.handleUnaryCall<Message, Message> = async (call, callback) => {
      try {
        callback(null, respond(await handle(attemptOf(path, call))));
      } catch (error) {
        callback(error as grpc.ServiceError);
      }
    };
    const stream: grpc.handleServerStreamingCall<Message, Message> = async (call) => {
      try {
        for await (const init of handle(attemptOf(path, call)) as AsyncIterable<unknown>) {
          call.write(respond(init));
        }
        call.end();
      } catch (error) {
        call.emit("error", error);
      }
    };
    implementation[method.localName] = method.methodKind === "unary" ? unary : stream;
  }
  server.addService(definition, implementation);
}

function attemptOf(
  path: string,
  call: grpc.ServerUnaryCall<Message, Message> | grpc.ServerWritableStream<Message, Message>,
): Attempt {
  const cancellation = new AbortController();
  call.on("cancelled", () => cancellation.abort());
  return {
    path,
    request: call.request as Message & Record<string, unknown>,
    metadata: call.metadata.getMap(),
    deadline: Number(call.getDeadline()),
    cancelled: cancellation.signal,
    sendMetadata: (entries) => {
      const metadata = new grpc.Metadata();
      for (const [key, value] of Object.entries(entries)) {
        metadata.set(key, value);
      }
      call.sendMetadata(metadata);
    },
  };
}
