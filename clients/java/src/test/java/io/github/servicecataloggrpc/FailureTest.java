package io.github.servicecataloggrpc;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.rpc.BadRequest;
import com.google.rpc.BadRequest.FieldViolation;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.github.servicecataloggrpc.Failure.Violation;
import io.github.servicecataloggrpc.v1.ErrorReason;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusException;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import org.junit.jupiter.api.Test;

class FailureTest {

  private static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  @Test
  void violationsAreNativeValues() {
    BadRequest detail =
        BadRequest.newBuilder()
            .addFieldViolations(FieldViolation.newBuilder().setField("tags[0].key").setDescription("is required"))
            .addFieldViolations(FieldViolation.newBuilder().setField("product").setDescription("is required"))
            .build();

    Failure failure = Failure.of(FakeFacade.failure(Code.INVALID_ARGUMENT, "INVALID_REQUEST", detail));

    assertEquals(Code.INVALID_ARGUMENT, failure.code());
    assertEquals(ErrorReason.ERROR_REASON_INVALID_REQUEST, failure.reason());
    assertEquals("because", failure.message());
    assertEquals(
        List.of(new Violation("tags[0].key", "is required"), new Violation("product", "is required")),
        failure.violations());
    assertEquals("INVALID_ARGUMENT (INVALID_REQUEST): because", failure.toString());
  }

  @Test
  void retryDelayIsADuration() {
    RetryInfo detail =
        RetryInfo.newBuilder()
            .setRetryDelay(com.google.protobuf.Duration.newBuilder().setSeconds(1).setNanos(500_000_000))
            .build();

    Failure failure = Failure.of(FakeFacade.failure(Code.RESOURCE_EXHAUSTED, "THROTTLED", detail));

    assertEquals(Optional.of(Duration.ofMillis(1500)), failure.retryDelay());
  }

  @Test
  void metadataSaysWhatAwsSaid() {
    ErrorInfo info =
        ErrorInfo.newBuilder()
            .setDomain("servicecatalog-grpc")
            .setReason("ACCESS_DENIED")
            .putMetadata("aws_request_id", "4f7c")
            .build();

    assertEquals(
        Map.of("aws_request_id", "4f7c"), Failure.of(FakeFacade.failure(Code.PERMISSION_DENIED, info)).metadata());
  }

  @Test
  void newerReasonKeepsItsName() {
    Failure failure = Failure.of(FakeFacade.failure(Code.UNKNOWN, "SOMETHING_NEW"));

    assertEquals(ErrorReason.ERROR_REASON_UNSPECIFIED, failure.reason());
    assertEquals("SOMETHING_NEW", failure.reasonName());
  }

  @Test
  void reasonOfAnotherDomainIsNone() {
    ErrorInfo info = ErrorInfo.newBuilder().setDomain("a-proxy").setReason("ACCESS_DENIED").build();

    Failure failure = Failure.of(FakeFacade.failure(Code.PERMISSION_DENIED, info));

    assertEquals(ErrorReason.ERROR_REASON_UNSPECIFIED, failure.reason());
    assertEquals("", failure.reasonName());
    assertEquals(Map.of(), failure.metadata());
  }

  @Test
  void failureWithoutDetailsHasCodeAndMessageOnly() {
    Failure failure = Failure.of(Status.UNAVAILABLE.withDescription("connection reset").asRuntimeException());

    assertEquals("UNAVAILABLE: connection reset", failure.toString());
    assertEquals(ErrorReason.ERROR_REASON_UNSPECIFIED, failure.reason());
    assertEquals(List.of(), failure.violations());
    assertEquals(Optional.empty(), failure.retryDelay());
    assertEquals(Optional.empty(), failure.token());
  }

  @Test
  void garbledDetailsAreNone() {
    Metadata trailers = new Metadata();
    trailers.put(DETAILS, new byte[] {(byte) 0xff, 1, 2});

    Failure failure = Failure.of(Status.UNKNOWN.asRuntimeException(trailers));

    assertEquals(Code.UNKNOWN, failure.code());
    assertEquals(ErrorReason.ERROR_REASON_UNSPECIFIED, failure.reason());
    assertEquals("", failure.message());
  }

  @Test
  void garbledDetailSpoilsNoOther() {
    com.google.rpc.Status details =
        com.google.rpc.Status.newBuilder()
            .addDetails(
                Any.newBuilder()
                    .setTypeUrl("type.googleapis.com/google.rpc.BadRequest")
                    .setValue(ByteString.copyFromUtf8("\u0007")))
            .addDetails(
                Any.pack(
                    RetryInfo.newBuilder()
                        .setRetryDelay(
                            com.google.protobuf.Duration.newBuilder().setSeconds(Long.MAX_VALUE).setNanos(1999999999))
                        .build()))
            .addDetails(
                Any.pack(ErrorInfo.newBuilder().setDomain("servicecatalog-grpc").setReason("THROTTLED").build()))
            .build();
    Metadata trailers = new Metadata();
    trailers.put(DETAILS, details.toByteArray());

    Failure failure = Failure.of(Status.RESOURCE_EXHAUSTED.asRuntimeException(trailers));

    assertEquals(ErrorReason.ERROR_REASON_THROTTLED, failure.reason());
    assertEquals(List.of(), failure.violations());
    assertEquals(Optional.empty(), failure.retryDelay());
  }

  @Test
  void checkedExceptionAndCauseAreReadToo() {
    StatusException exception = Status.NOT_FOUND.asException();

    assertEquals(Code.NOT_FOUND, Failure.of(exception).code());
    assertEquals(Code.NOT_FOUND, Failure.of(new ExecutionException(exception)).code());
  }

  @Test
  void anyOtherExceptionIsUnknown() {
    assertEquals(Code.UNKNOWN, Failure.of(new IllegalStateException("no")).code());
  }
}
