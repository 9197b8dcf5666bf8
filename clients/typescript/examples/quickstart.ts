import { connect, RecordStatus } from "servicecatalog-grpc-client";

using client = connect("127.0.0.1:50051", { plaintext: true });

const name = `bucket-${crypto.randomUUID()}`;
const { recordDetail } = await client.provisioning.provisionProduct({
  product: { case: "productName", value: "s3-bucket" },
  provisioningArtifact: { case: "provisioningArtifactName", value: "v1" },
  provisionedProductName: name,
  provisioningParameters: [{ key: "BucketName", value: name }],
});

const end = await client.wait(recordDetail?.recordId, { timeoutMs: 10 * 60_000 });
console.log(name, RecordStatus[end.recordDetail?.status ?? 0]);
for (const { outputKey, outputValue } of end.recordOutputs) {
  console.log(outputKey, outputValue);
}
