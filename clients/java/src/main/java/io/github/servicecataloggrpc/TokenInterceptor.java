package io.github.servicecataloggrpc;

import static io.grpc.Metadata.ASCII_STRING_MARSHALLER;

import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Message;
import io.github.servicecataloggrpc.v1.ProvisionProductRequest;
import io.github.servicecataloggrpc.v1.TerminateProvisionedProductRequest;
import io.github.servicecataloggrpc.v1.UpdateProvisionedProductPropertiesRequest;
import io.github.servicecataloggrpc.v1.UpdateProvisionedProductRequest;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.Map;
import java.util.UUID;

/**
 * Gives a token to every write that has none, and puts the token in force where {@link Failure} finds it.
 *
 * <p>gRPC's retries happen below interceptors, so all attempts of a call carry the token that it gets here.
 */
final class TokenInterceptor implements ClientInterceptor {

  /** The façade sends the token in force at the head of a response; here a failure gets it in its trailers too. */
  static final Metadata.Key<String> TOKEN = Metadata.Key.of("idempotency-token", ASCII_STRING_MARSHALLER);

  // From these the façade derives the token, and a token in the request would outrank it.
  private static final Metadata.Key<String> IDEMPOTENCY_KEY =
      Metadata.Key.of("idempotency-key", ASCII_STRING_MARSHALLER);
  private static final Metadata.Key<String> REQUEST_ID = Metadata.Key.of("x-request-id", ASCII_STRING_MARSHALLER);

  private static final Map<Descriptor, Integer> TOKEN_FIELDS =
      Map.of(
          ProvisionProductRequest.getDescriptor(),
          ProvisionProductRequest.PROVISION_TOKEN_FIELD_NUMBER,
          UpdateProvisionedProductRequest.getDescriptor(),
          UpdateProvisionedProductRequest.UPDATE_TOKEN_FIELD_NUMBER,
          UpdateProvisionedProductPropertiesRequest.getDescriptor(),
          UpdateProvisionedProductPropertiesRequest.IDEMPOTENCY_TOKEN_FIELD_NUMBER,
          TerminateProvisionedProductRequest.getDescriptor(),
          TerminateProvisionedProductRequest.TERMINATE_TOKEN_FIELD_NUMBER);

  @Override
  public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
    return new Call<>(next.newCall(method, options));
  }

  private static final class Call<Q, R> extends SimpleForwardingClientCall<Q, R> {

    private boolean keyed;
    // Written by the caller's thread and by gRPC's.
    private volatile String token;

    Call(ClientCall<Q, R> call) {
      super(call);
    }

    @Override
    public void start(Listener<R> listener, Metadata headers) {
      keyed = headers.containsKey(IDEMPOTENCY_KEY) || headers.containsKey(REQUEST_ID);
      super.start(
          new SimpleForwardingClientCallListener<>(listener) {
            @Override
            public void onHeaders(Metadata headers) {
              if (headers.containsKey(TOKEN)) {
                token = headers.get(TOKEN);
              }
              super.onHeaders(headers);
            }

            @Override
            public void onClose(Status status, Metadata trailers) {
              if (!status.isOk() && token != null) {
                trailers.discardAll(TOKEN);
                trailers.put(TOKEN, token);
              }
              super.onClose(status, trailers);
            }
          },
          headers);
    }

    @Override
    public void sendMessage(Q message) {
      super.sendMessage(withToken(message));
    }

    @SuppressWarnings("unchecked") // A message built from a message is of its type.
    private Q withToken(Q message) {
      if (!(message instanceof Message request) || !TOKEN_FIELDS.containsKey(request.getDescriptorForType())) {
        return message;
      }
      Descriptor type = request.getDescriptorForType();
      FieldDescriptor field = type.findFieldByNumber(TOKEN_FIELDS.get(type));
      String given = (String) request.getField(field);
      if (!given.isEmpty()) {
        token = given;
        return message;
      }
      if (keyed) {
        return message;
      }
      token = UUID.randomUUID().toString();
      return (Q) request.toBuilder().setField(field, token).build();
    }
  }
}
