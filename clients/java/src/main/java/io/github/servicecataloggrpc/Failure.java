package io.github.servicecataloggrpc;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.github.servicecataloggrpc.v1.ErrorReason;
import io.grpc.Metadata;
import io.grpc.Status;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * What a failed call says: read from the exception that it ended with.
 *
 * <p>gRPC's stubs choose their own exception, so this is not one: catch theirs, and ask.
 *
 * <pre>{@code
 * try {
 *   client.provisioning().provisionProduct(request);
 * } catch (StatusRuntimeException e) {
 *   Failure failure = Failure.of(e);
 * }
 * }</pre>
 *
 * <p>To repeat an intent whose outcome is unknown (reason OUTCOME_UNKNOWN, or no reason at all), send the same request
 * with its token field set to {@link #token()}: AWS then answers with what happened, and acts only if it has not.
 */
public final class Failure {

  /**
   * One field of a request that breaks a rule.
   *
   * @param field the path of the field in protobuf's names, e.g. {@code tags[0].key}
   * @param description what is wrong; never holds the value
   */
  public record Violation(String field, String description) {}

  private static final String DOMAIN = "servicecatalog-grpc";
  private static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  private final Status status;
  private ErrorInfo info = ErrorInfo.getDefaultInstance();
  private List<Violation> violations = List.of();
  private Duration retryDelay;
  private String token;

  private Failure(Status status, Metadata trailers) {
    this.status = status;
    for (Any detail : details(trailers)) {
      try {
        read(detail);
      } catch (InvalidProtocolBufferException | ArithmeticException e) {
        // A detail that cannot be read says nothing; the others do.
      }
    }
    token = info.getMetadataOrDefault("idempotency_token", trailers.get(TokenInterceptor.TOKEN));
  }

  /**
   * Reads the failure of a call.
   *
   * @param exception what the call threw or its future or observer got; gRPC's exception may be among its causes
   * @return the failure; of code UNKNOWN and with nothing else where there is no gRPC exception
   */
  public static Failure of(Throwable exception) {
    Metadata trailers = Status.trailersFromThrowable(exception);
    return new Failure(Status.fromThrowable(exception), trailers != null ? trailers : new Metadata());
  }

  /**
   * Returns gRPC's code, which says what to do.
   *
   * @return the code
   */
  public Status.Code code() {
    return status.getCode();
  }

  /**
   * Returns the façade's reason, which says why.
   *
   * @return the reason; {@code ERROR_REASON_UNSPECIFIED} where gRPC or a proxy made the failure, so that what happened
   *     is unknown, and where the façade is newer than this client and {@link #reasonName()} is new
   */
  public ErrorReason reason() {
    try {
      return ErrorReason.valueOf("ERROR_REASON_" + info.getReason());
    } catch (IllegalArgumentException e) {
      return ErrorReason.ERROR_REASON_UNSPECIFIED;
    }
  }

  /**
   * Returns the reason as it was sent, e.g. {@code OUTCOME_UNKNOWN}.
   *
   * @return the reason's name; empty where gRPC or a proxy made the failure
   */
  public String reasonName() {
    return info.getReason();
  }

  /**
   * Returns the message, for people.
   *
   * @return the message, which may be empty
   */
  public String message() {
    return status.getDescription() != null ? status.getDescription() : "";
  }

  /**
   * Returns every field of the request that breaks a rule.
   *
   * @return the violations, none unless the reason is {@code INVALID_REQUEST}
   */
  public List<Violation> violations() {
    return violations;
  }

  /**
   * Returns when to repeat the call.
   *
   * @return how long to wait before; empty where nothing was said
   */
  public Optional<Duration> retryDelay() {
    return Optional.ofNullable(retryDelay);
  }

  /**
   * Returns the idempotency token in force, the one to repeat the request with.
   *
   * @return the token as the façade named it, else as it was sent; empty for a read, and where the façade was to
   *     derive it from the metadata and did not come to say it
   */
  public Optional<String> token() {
    return Optional.ofNullable(token);
  }

  /**
   * Returns what else is known, where it is: {@code aws_operation}, {@code aws_error_code}, {@code aws_request_id} and
   * {@code idempotency_token}.
   *
   * @return the metadata of the {@code google.rpc.ErrorInfo}
   */
  public Map<String, String> metadata() {
    return info.getMetadataMap();
  }

  /** Returns the code, the reason if there is one, the message, and what made this client fail if it did so itself. */
  @Override
  public String toString() {
    String reason = reasonName().isEmpty() ? "" : " (" + reasonName() + ")";
    String cause = status.getCause() == null ? "" : ": " + status.getCause().getMessage();
    return code() + reason + ": " + message() + cause;
  }

  private static List<Any> details(Metadata trailers) {
    byte[] details = trailers.get(DETAILS);
    try {
      return details == null ? List.of() : com.google.rpc.Status.parseFrom(details).getDetailsList();
    } catch (InvalidProtocolBufferException e) {
      return List.of();
    }
  }

  private void read(Any detail) throws InvalidProtocolBufferException {
    if (detail.is(ErrorInfo.class)) {
      ErrorInfo candidate = detail.unpack(ErrorInfo.class);
      info = candidate.getDomain().equals(DOMAIN) ? candidate : info;
    } else if (detail.is(BadRequest.class)) {
      violations =
          detail.unpack(BadRequest.class).getFieldViolationsList().stream()
              .map(violation -> new Violation(violation.getField(), violation.getDescription()))
              .toList();
    } else if (detail.is(RetryInfo.class)) {
      RetryInfo retry = detail.unpack(RetryInfo.class);
      retryDelay = Duration.ofSeconds(retry.getRetryDelay().getSeconds(), retry.getRetryDelay().getNanos());
    }
  }
}
