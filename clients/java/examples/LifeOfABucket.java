import io.github.servicecataloggrpc.Failure;
import io.github.servicecataloggrpc.ServiceCatalogClient;
import io.github.servicecataloggrpc.v1.ProvisionProductRequest;
import io.github.servicecataloggrpc.v1.ProvisioningParameter;
import io.github.servicecataloggrpc.v1.RecordDetail;
import io.github.servicecataloggrpc.v1.RecordStatus;
import io.github.servicecataloggrpc.v1.TerminateProvisionedProductRequest;
import io.github.servicecataloggrpc.v1.UpdateProvisionedProductRequest;
import io.github.servicecataloggrpc.v1.WatchRecordResponse;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.UUID;

/** Provisions a bucket, updates it and terminates it again, in the sandbox that {@code make run} starts. */
public class LifeOfABucket {

  public static void main(String[] args) throws InterruptedException {
    String address = args.length > 0 ? args[0] : "127.0.0.1:50051";
    String name = "java-" + UUID.randomUUID();
    try (ServiceCatalogClient client = ServiceCatalogClient.builder(address).plaintext().build()) {
      await(client, provision(client, name));
      await(client, update(client, name));
      await(client, terminate(client, name));
    } catch (StatusRuntimeException e) {
      System.err.println(Failure.of(e));
      System.exit(1);
    }
  }

  static RecordDetail provision(ServiceCatalogClient client, String name) {
    ProvisionProductRequest request =
        ProvisionProductRequest.newBuilder()
            .setProductName("s3-bucket")
            .setProvisioningArtifactName("v1")
            .setProvisionedProductName(name)
            .addProvisioningParameters(ProvisioningParameter.newBuilder().setKey("BucketName").setValue(name))
            .build();
    return client.provisioning().provisionProduct(request).getRecordDetail();
  }

  static RecordDetail update(ServiceCatalogClient client, String name) {
    UpdateProvisionedProductRequest request =
        UpdateProvisionedProductRequest.newBuilder()
            .setProvisionedProductName(name)
            .setProvisioningArtifactName("v2")
            .build();
    return client.provisioning().updateProvisionedProduct(request).getRecordDetail();
  }

  static RecordDetail terminate(ServiceCatalogClient client, String name) {
    TerminateProvisionedProductRequest request =
        TerminateProvisionedProductRequest.newBuilder().setProvisionedProductName(name).build();
    return client.provisionedProducts().terminateProvisionedProduct(request).getRecordDetail();
  }

  static void await(ServiceCatalogClient client, RecordDetail begun) throws InterruptedException {
    WatchRecordResponse ended = client.waitFor(begun.getRecordId(), Duration.ofMinutes(5));
    RecordDetail record = ended.getRecordDetail();
    System.out.println(record.getRecordType() + ": " + record.getStatus());
    ended.getRecordOutputsList()
        .forEach(output -> System.out.println("  " + output.getOutputKey() + " = " + output.getOutputValue()));
    if (record.getStatus() == RecordStatus.RECORD_STATUS_FAILED) {
      System.err.println(record.getRecordErrorsList());
      System.exit(1);
    }
  }
}
