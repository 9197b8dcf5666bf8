/** Pieces to take: TLS with certificates of one's own, templates of requests, and what to do about a failure. */

import { readFileSync } from "node:fs";
import {
  type Client,
  connect,
  create,
  credentials,
  ErrorReason,
  Failure,
  type ProvisionProductRequest,
  ProvisionProductRequestSchema,
  type ProvisionProductResponse,
  status,
} from "servicecatalog-grpc-client";

export function connectWithCertificates(): Client {
  return connect("servicecatalog.example.com:443", {
    credentials: credentials.createSsl(readFileSync("ca.pem"), readFileSync("key.pem"), readFileSync("client.pem")),
    defaultDeadlineMs: 10_000,
  });
}

export async function provisionTwice(client: Client): Promise<void> {
  const template = create(ProvisionProductRequestSchema, {
    product: { case: "productName", value: "s3-bucket" },
    provisioningArtifact: { case: "provisioningArtifactName", value: "v1" },
  });
  await provision(client, { ...template, provisionedProductName: "orders" });
  await provision(client, { ...template, provisionedProductName: "invoices" });
}

/** Provisions, and where nobody knows whether that happened, finds out with the same token. */
export async function provision(client: Client, request: ProvisionProductRequest): Promise<ProvisionProductResponse> {
  try {
    return await client.provisioning.provisionProduct(request);
  } catch (error) {
    if (error instanceof Failure && error.token && mayHaveHappened(error)) {
      return await client.provisioning.provisionProduct({ ...request, provisionToken: error.token });
    }
    throw error;
  }
}

function mayHaveHappened({ reason, reasonName }: Failure): boolean {
  const madeByGrpcOrAProxy = reasonName === undefined;
  return madeByGrpcOrAProxy || reason === ErrorReason.OUTCOME_UNKNOWN || reason === ErrorReason.DEADLINE_EXCEEDED;
}

export function explain(failure: Failure): string {
  switch (failure.reason) {
    case ErrorReason.INVALID_REQUEST:
      return failure.violations.map(({ field, description }) => `${field} ${description}`).join("\n");
    case ErrorReason.THROTTLED:
    case ErrorReason.OVERLOADED:
      return `come back in ${failure.retryDelayMs} ms`;
    default:
      return `${status[failure.code]}: ${failure.message} ${JSON.stringify(failure.metadata)}`;
  }
}
