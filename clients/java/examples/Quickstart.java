import io.github.servicecataloggrpc.ServiceCatalogClient;
import io.github.servicecataloggrpc.v1.ProvisionProductRequest;
import io.github.servicecataloggrpc.v1.ProvisionProductResponse;
import io.github.servicecataloggrpc.v1.ProvisioningParameter;
import io.github.servicecataloggrpc.v1.WatchRecordResponse;
import java.time.Duration;
import java.util.UUID;

public class Quickstart {
  public static void main(String[] args) throws InterruptedException {
    String name = "queue-" + UUID.randomUUID();
    try (ServiceCatalogClient client = ServiceCatalogClient.builder("127.0.0.1:50051").plaintext().build()) {
      ProvisionProductRequest request =
          ProvisionProductRequest.newBuilder()
              .setProductName("sqs-queue")
              .setProvisioningArtifactName("v1")
              .setProvisionedProductName(name)
              .addProvisioningParameters(ProvisioningParameter.newBuilder().setKey("QueueName").setValue(name))
              .build();
      ProvisionProductResponse begun = client.provisioning().provisionProduct(request);
      WatchRecordResponse ended = client.waitFor(begun.getRecordDetail().getRecordId(), Duration.ofMinutes(5));
      System.out.println(ended);
    }
  }
}
