package io.github.servicecataloggrpc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.rpc.ErrorInfo;
import io.github.servicecataloggrpc.v1.DescribeRecordRequest;
import io.github.servicecataloggrpc.v1.ListRecordHistoryRequest;
import io.github.servicecataloggrpc.v1.ListRecordHistoryResponse;
import io.github.servicecataloggrpc.v1.ProvisionProductRequest;
import io.github.servicecataloggrpc.v1.ProvisionProductResponse;
import io.github.servicecataloggrpc.v1.ProvisionedProductServiceGrpc;
import io.github.servicecataloggrpc.v1.ProvisioningServiceGrpc;
import io.github.servicecataloggrpc.v1.RecordServiceGrpc;
import io.github.servicecataloggrpc.v1.TerminateProvisionedProductRequest;
import io.github.servicecataloggrpc.v1.TerminateProvisionedProductResponse;
import io.github.servicecataloggrpc.v1.UpdateProvisionedProductPropertiesRequest;
import io.github.servicecataloggrpc.v1.UpdateProvisionedProductPropertiesResponse;
import io.github.servicecataloggrpc.v1.UpdateProvisionedProductRequest;
import io.github.servicecataloggrpc.v1.UpdateProvisionedProductResponse;
import io.grpc.ClientInterceptor;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class TokenInterceptorTest {

  private static final ProvisionProductRequest REQUEST =
      ProvisionProductRequest.newBuilder().setProvisionedProductName("bucket").build();

  private final FakeFacade facade = new FakeFacade();
  private final ServiceCatalogClient client = facade.client();
  private final List<ProvisionProductRequest> provisioned = Collections.synchronizedList(new ArrayList<>());

  @AfterEach
  void close() {
    client.close();
    facade.close();
  }

  @Test
  void everyWriteWithoutTokenGetsOne() {
    List<String> tokens = new ArrayList<>();
    facade
        .on(
            ProvisioningServiceGrpc.getProvisionProductMethod(),
            (request, observer) -> {
              tokens.add(request.getProvisionToken());
              observer.onNext(ProvisionProductResponse.getDefaultInstance());
              observer.onCompleted();
            })
        .on(
            ProvisioningServiceGrpc.getUpdateProvisionedProductMethod(),
            (request, observer) -> {
              tokens.add(request.getUpdateToken());
              observer.onNext(UpdateProvisionedProductResponse.getDefaultInstance());
              observer.onCompleted();
            })
        .on(
            ProvisioningServiceGrpc.getUpdateProvisionedProductPropertiesMethod(),
            (request, observer) -> {
              tokens.add(request.getIdempotencyToken());
              observer.onNext(UpdateProvisionedProductPropertiesResponse.getDefaultInstance());
              observer.onCompleted();
            })
        .on(
            ProvisionedProductServiceGrpc.getTerminateProvisionedProductMethod(),
            (request, observer) -> {
              tokens.add(request.getTerminateToken());
              observer.onNext(TerminateProvisionedProductResponse.getDefaultInstance());
              observer.onCompleted();
            });

    client.provisioning().provisionProduct(REQUEST);
    client.provisioning().updateProvisionedProduct(UpdateProvisionedProductRequest.getDefaultInstance());
    client
        .provisioning()
        .updateProvisionedProductProperties(UpdateProvisionedProductPropertiesRequest.getDefaultInstance());
    client
        .provisionedProducts()
        .terminateProvisionedProduct(TerminateProvisionedProductRequest.getDefaultInstance());

    assertEquals(4, Set.copyOf(tokens).size());
    tokens.forEach(UUID::fromString);
  }

  @Test
  void templateStaysAsItIsAndEachCallWithItIsAnIntentOfItsOwn() {
    answer();

    client.provisioning().provisionProduct(REQUEST);
    client.provisioning().provisionProduct(REQUEST);

    assertEquals("", REQUEST.getProvisionToken());
    assertNotEquals(provisioned.get(0).getProvisionToken(), provisioned.get(1).getProvisionToken());
    assertEquals(REQUEST, provisioned.get(0).toBuilder().clearProvisionToken().build());
  }

  @Test
  void tokenOfTheRequestStays() {
    answer();

    client.provisioning().provisionProduct(REQUEST.toBuilder().setProvisionToken("order-17").build());

    assertEquals("order-17", provisioned.get(0).getProvisionToken());
  }

  @ParameterizedTest
  @ValueSource(strings = {"idempotency-key", "x-request-id"})
  void keyInTheMetadataLeavesTheTokenToTheFacade(String key) {
    fail(Code.ABORTED);

    StatusRuntimeException exception =
        assertThrows(
            StatusRuntimeException.class,
            () -> client.provisioning().withInterceptors(attach(key, "order-17")).provisionProduct(REQUEST));

    assertEquals("", provisioned.get(0).getProvisionToken());
    assertEquals(Optional.empty(), Failure.of(exception).token());
  }

  @Test
  void keyThatAnInterceptorOfTheChannelAttachesCounts() {
    answer();

    try (ServiceCatalogClient other =
        facade.builder().configure(channel -> channel.intercept(attach("x-request-id", "1"))).build()) {
      other.provisioning().provisionProduct(REQUEST);
    }

    assertEquals("", provisioned.get(0).getProvisionToken());
  }

  @Test
  void gRpcRepeatsUnavailableWithTheSameToken() {
    on(
        ProvisioningServiceGrpc.getProvisionProductMethod(),
        count -> count < 3 ? FakeFacade.failure(Code.UNAVAILABLE, "UPSTREAM_UNREACHABLE") : null);

    client.provisioning().provisionProduct(REQUEST);

    assertEquals(3, provisioned.size());
    assertEquals(1, Set.copyOf(provisioned).size());
  }

  @ParameterizedTest
  @ValueSource(strings = {"RESOURCE_EXHAUSTED", "UNKNOWN", "ABORTED", "INTERNAL"})
  void gRpcRepeatsNothingElse(String code) {
    fail(Code.valueOf(code));

    assertThrows(StatusRuntimeException.class, () -> client.provisioning().provisionProduct(REQUEST));

    assertEquals(1, provisioned.size());
  }

  @Test
  void failureHasTheTokenThatWasSent() {
    fail(Code.UNKNOWN);

    StatusRuntimeException exception =
        assertThrows(StatusRuntimeException.class, () -> client.provisioning().provisionProduct(REQUEST));

    assertEquals(provisioned.get(0).getProvisionToken(), Failure.of(exception).token().orElseThrow());
  }

  @Test
  void failureOfAFutureHasItToo() {
    fail(Code.UNKNOWN);

    ExecutionException exception =
        assertThrows(
            ExecutionException.class,
            () -> ProvisioningServiceGrpc.newFutureStub(client.channel()).provisionProduct(REQUEST).get());

    assertEquals(provisioned.get(0).getProvisionToken(), Failure.of(exception).token().orElseThrow());
  }

  @Test
  void tokenAtTheHeadOfTheResponseOutranksTheOneSent() {
    facade.head = metadata("idempotency-token", "in-force");
    fail(Code.UNKNOWN);

    StatusRuntimeException exception =
        assertThrows(StatusRuntimeException.class, () -> client.provisioning().provisionProduct(REQUEST));

    assertEquals(Optional.of("in-force"), Failure.of(exception).token());
  }

  @Test
  void tokenInTheDetailsOutranksBoth() {
    facade.head = metadata("idempotency-token", "head");
    ErrorInfo info =
        ErrorInfo.newBuilder()
            .setDomain("servicecatalog-grpc")
            .setReason("OUTCOME_UNKNOWN")
            .putMetadata("idempotency_token", "in-force")
            .build();
    on(ProvisioningServiceGrpc.getProvisionProductMethod(), count -> FakeFacade.failure(Code.UNKNOWN, info));

    StatusRuntimeException exception =
        assertThrows(StatusRuntimeException.class, () -> client.provisioning().provisionProduct(REQUEST));

    assertEquals(Optional.of("in-force"), Failure.of(exception).token());
  }

  @Test
  void readsHaveNone() {
    List<ListRecordHistoryRequest> read = new ArrayList<>();
    facade.on(
        RecordServiceGrpc.getListRecordHistoryMethod(),
        (request, observer) -> {
          read.add(request);
          observer.onNext(ListRecordHistoryResponse.getDefaultInstance());
          observer.onCompleted();
        });
    facade.on(
        RecordServiceGrpc.getDescribeRecordMethod(),
        (request, observer) -> observer.onError(Status.NOT_FOUND.asRuntimeException()));

    client.records().listRecordHistory(ListRecordHistoryRequest.getDefaultInstance());
    StatusRuntimeException exception =
        assertThrows(
            StatusRuntimeException.class,
            () -> client.records().describeRecord(DescribeRecordRequest.getDefaultInstance()));

    assertEquals(ListRecordHistoryRequest.getDefaultInstance(), read.get(0));
    assertTrue(Failure.of(exception).token().isEmpty());
  }

  private void answer() {
    on(ProvisioningServiceGrpc.getProvisionProductMethod(), count -> null);
  }

  private void fail(Code code) {
    on(ProvisioningServiceGrpc.getProvisionProductMethod(), count -> code.toStatus().asRuntimeException());
  }

  private void on(
      MethodDescriptor<ProvisionProductRequest, ProvisionProductResponse> method,
      java.util.function.IntFunction<StatusRuntimeException> failureAtAttempt) {
    facade.on(
        method,
        (request, observer) -> {
          provisioned.add(request);
          StatusRuntimeException failure = failureAtAttempt.apply(provisioned.size());
          if (failure != null) {
            observer.onError(failure);
          } else {
            observer.onNext(ProvisionProductResponse.getDefaultInstance());
            observer.onCompleted();
          }
        });
  }

  private static ClientInterceptor attach(String key, String value) {
    return MetadataUtils.newAttachHeadersInterceptor(metadata(key, value));
  }

  private static Metadata metadata(String key, String value) {
    Metadata metadata = new Metadata();
    metadata.put(Metadata.Key.of(key, Metadata.ASCII_STRING_MARSHALLER), value);
    return metadata;
  }
}
