import io.github.servicecataloggrpc.Failure;
import io.github.servicecataloggrpc.ServiceCatalogClient;
import io.github.servicecataloggrpc.v1.DescribeProductRequest;
import io.github.servicecataloggrpc.v1.ErrorReason;
import io.github.servicecataloggrpc.v1.ProvisionProductRequest;
import io.github.servicecataloggrpc.v1.ProvisionProductResponse;
import io.github.servicecataloggrpc.v1.ProvisioningServiceGrpc;
import io.github.servicecataloggrpc.v1.ProvisioningServiceGrpc.ProvisioningServiceFutureStub;
import io.github.servicecataloggrpc.v1.WatchRecordResponse;
import io.grpc.ClientInterceptor;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.time.Duration;
import java.util.concurrent.TimeUnit;

/** What the README shows besides the life of a bucket. */
class Recipes {

  ServiceCatalogClient overTls() {
    ServiceCatalogClient client = ServiceCatalogClient.connect("servicecatalog.example.com:443");
    return client;
  }

  ServiceCatalogClient withPrivateCa() throws IOException {
    ServiceCatalogClient client =
        ServiceCatalogClient.builder("servicecatalog.example.com:443")
            .credentials(
                TlsChannelCredentials.newBuilder()
                    .trustManager(new File("ca.pem"))
                    .keyManager(new File("client.pem"), new File("client.key"))
                    .build())
            .build();
    return client;
  }

  ServiceCatalogClient withOptions(ClientInterceptor tracing) {
    ServiceCatalogClient client =
        ServiceCatalogClient.builder("unix:/run/servicecatalog.sock")
            .plaintext()
            .defaultDeadline(Duration.ofSeconds(10))
            .configure(channel -> channel.userAgent("orders/1.0").intercept(tracing))
            .build();
    return client;
  }

  void withDeadline(ServiceCatalogClient client, DescribeProductRequest request) {
    client.catalog().withDeadlineAfter(5, TimeUnit.SECONDS).describeProduct(request);
  }

  ProvisioningServiceFutureStub future(ServiceCatalogClient client) {
    ProvisioningServiceFutureStub stub = ProvisioningServiceGrpc.newFutureStub(client.channel());
    return stub;
  }

  ProvisionProductResponse withKey(ServiceCatalogClient client, ProvisionProductRequest request) {
    Metadata metadata = new Metadata();
    metadata.put(Metadata.Key.of("idempotency-key", Metadata.ASCII_STRING_MARSHALLER), "order-17");
    ProvisionProductResponse response =
        client
            .provisioning()
            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata))
            .provisionProduct(request);
    return response;
  }

  ProvisionProductResponse showMistakes(ServiceCatalogClient client, ProvisionProductRequest request) {
    try {
      return client.provisioning().provisionProduct(request);
    } catch (StatusRuntimeException e) {
      Failure failure = Failure.of(e);
      if (failure.reason() == ErrorReason.ERROR_REASON_INVALID_REQUEST) {
        for (Failure.Violation violation : failure.violations()) {
          System.err.println(violation.field() + ": " + violation.description());
        }
      }
      throw e;
    }
  }

  ProvisionProductResponse findOut(ServiceCatalogClient client, ProvisionProductRequest request) {
    try {
      return client.provisioning().provisionProduct(request);
    } catch (StatusRuntimeException e) {
      Failure failure = Failure.of(e);
      boolean unknown =
          failure.reason() == ErrorReason.ERROR_REASON_OUTCOME_UNKNOWN || failure.reasonName().isEmpty();
      if (!unknown || failure.token().isEmpty()) {
        throw e;
      }
      return client
          .provisioning()
          .provisionProduct(request.toBuilder().setProvisionToken(failure.token().get()).build());
    }
  }

  void waitUntilTheDeadline(ServiceCatalogClient client, String recordId) throws InterruptedException {
    try {
      WatchRecordResponse ended = client.waitFor(recordId, Duration.ofMinutes(30));
      System.out.println(ended.getRecordDetail().getStatus());
    } catch (StatusRuntimeException e) {
      if (Failure.of(e).code() != Status.Code.DEADLINE_EXCEEDED) {
        throw e;
      }
      System.out.println("still at work");
    }
  }
}
