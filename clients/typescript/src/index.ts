/**
 * A client of servicecatalog-grpc. {@link connect} is where to begin.
 *
 * @module
 */

// What callers need of protobuf and of gRPC, so that they can depend on this package alone.
export { create, type MessageInitShape, toJson } from "@bufbuild/protobuf";
export { timestampDate } from "@bufbuild/protobuf/wkt";
export { credentials, Metadata, status } from "@grpc/grpc-js";
export type { CallOptions, ServiceClient } from "./calls.js";
export { type Client, type ConnectOptions, connect } from "./client.js";
export { Failure, type FailureDetails, type Violation } from "./failure.js";
export * from "./gen/servicecatalog/v1/catalog_pb.js";
export * from "./gen/servicecatalog/v1/catalog_service_pb.js";
export * from "./gen/servicecatalog/v1/error_reason_pb.js";
export * from "./gen/servicecatalog/v1/provisioned_product_pb.js";
export * from "./gen/servicecatalog/v1/provisioned_product_service_pb.js";
export * from "./gen/servicecatalog/v1/provisioning_pb.js";
export * from "./gen/servicecatalog/v1/provisioning_service_pb.js";
export * from "./gen/servicecatalog/v1/record_pb.js";
export * from "./gen/servicecatalog/v1/record_service_pb.js";
export * from "./gen/servicecatalog/v1/search_pb.js";
export type { WaitOptions } from "./wait.js";
