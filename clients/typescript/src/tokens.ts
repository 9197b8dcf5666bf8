import { randomUUID } from "node:crypto";
import { clone, create, type DescMessage, type Message, type MessageInitShape } from "@bufbuild/protobuf";
import type { Metadata } from "@grpc/grpc-js";
import { TerminateProvisionedProductRequestSchema } from "./gen/servicecatalog/v1/provisioned_product_service_pb.js";
import {
  ProvisionProductRequestSchema,
  UpdateProvisionedProductPropertiesRequestSchema,
  UpdateProvisionedProductRequestSchema,
} from "./gen/servicecatalog/v1/provisioning_service_pb.js";

/** The field of each write's request that makes a repeat safe. Every other token is that of a page. */
const TOKEN_FIELDS = new Map(
  [
    ProvisionProductRequestSchema.field.provisionToken,
    UpdateProvisionedProductRequestSchema.field.updateToken,
    UpdateProvisionedProductPropertiesRequestSchema.field.idempotencyToken,
    TerminateProvisionedProductRequestSchema.field.terminateToken,
  ].map((field) => [field.parent.typeName, field.localName]),
);

/** The metadata from which the façade derives a token. One in the request would outrank it. */
const KEYS = ["idempotency-key", "x-request-id"];

/**
 * Returns the message to send, and its token if it has one. A write to which neither the request nor the metadata gives
 * one gets a random one, in a copy: the request can be the template of the next intent.
 */
export function withToken(
  schema: DescMessage,
  request: MessageInitShape<DescMessage>,
  metadata: Metadata,
): { message: Message; token?: string } {
  const message = create(schema, request);
  const field = TOKEN_FIELDS.get(schema.typeName);
  if (field === undefined) {
    return { message };
  }
  const given = (message as Message & Record<string, unknown>)[field];
  if (given) {
    return { message, token: String(given) };
  }
  if (KEYS.some((key) => metadata.get(key).length > 0)) {
    return { message };
  }
  const token = randomUUID();
  return { message: Object.assign(clone(schema, message), { [field]: token }), token };
}
