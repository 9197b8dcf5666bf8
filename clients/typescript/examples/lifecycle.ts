/**
 * Provisions a bucket, updates it and terminates it, and waits for each to end.
 *
 * Run it against `make run`: `npm run --silent example [HOST:PORT]`
 */

import { randomBytes } from "node:crypto";
import { type Client, connect, Failure, type RecordDetail, RecordStatus, status } from "servicecatalog-grpc-client";

async function main(address = "127.0.0.1:50051"): Promise<void> {
  using client = connect(address, { plaintext: true });
  const name = `bucket-${randomBytes(4).toString("hex")}`;
  await finish(client, await provision(client, name));
  await finish(client, await update(client, name));
  await finish(client, await terminate(client, name));
}

async function provision(client: Client, name: string): Promise<RecordDetail | undefined> {
  const response = await client.provisioning.provisionProduct({
    product: { case: "productName", value: "s3-bucket" },
    provisioningArtifact: { case: "provisioningArtifactName", value: "v1" },
    provisionedProductName: name,
    provisioningParameters: [{ key: "BucketName", value: name }],
  });
  return response.recordDetail;
}

async function update(client: Client, name: string): Promise<RecordDetail | undefined> {
  const response = await client.provisioning.updateProvisionedProduct({
    provisionedProduct: { case: "provisionedProductName", value: name },
    provisioningArtifact: { case: "provisioningArtifactName", value: "v2" },
    provisioningParameters: [{ key: "BucketName", usePreviousValue: true }],
  });
  return response.recordDetail;
}

async function terminate(client: Client, name: string): Promise<RecordDetail | undefined> {
  const response = await client.provisionedProducts.terminateProvisionedProduct({
    provisionedProduct: { case: "provisionedProductName", value: name },
  });
  return response.recordDetail;
}

/** Waits for the record to end, and says what it comes to. */
async function finish(client: Client, begun: RecordDetail | undefined): Promise<void> {
  const { recordDetail, recordOutputs } = await client.wait(begun?.recordId, {
    timeoutMs: 10 * 60_000,
    onChange: ({ recordDetail }) => console.log(begun?.recordType, RecordStatus[recordDetail?.status ?? 0]),
  });
  if (recordDetail?.status === RecordStatus.FAILED) {
    throw new Error(recordDetail.recordErrors.map(({ description }) => description).join("; "));
  }
  for (const { outputKey, outputValue } of recordOutputs) {
    console.log(`  ${outputKey}: ${outputValue}`);
  }
}

try {
  await main(process.argv[2]);
} catch (error) {
  console.error(error instanceof Failure ? `${status[error.code]}: ${error.message}` : String(error));
  process.exitCode = 1;
}
