package io.github.servicecataloggrpc;

import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import io.grpc.Grpc;
import io.grpc.HandlerRegistry;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerCredentials;
import io.grpc.ServerMethodDefinition;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.BiConsumer;

/** A gRPC server on loopback in the place of the façade, which does what a test says. */
final class FakeFacade implements AutoCloseable {

  /** The metadata of each attempt that arrived, in order. */
  final List<Metadata> attempts = new CopyOnWriteArrayList<>();

  /** What each response begins with, before anything else happens; nothing if null. */
  volatile Metadata head;

  private final Map<String, ServerMethodDefinition<?, ?>> methods = new ConcurrentHashMap<>();
  private final Server server;

  FakeFacade() {
    this(0, InsecureServerCredentials.create());
  }

  FakeFacade(int port, ServerCredentials credentials) {
    HandlerRegistry registry =
        new HandlerRegistry() {
          @Override
          public ServerMethodDefinition<?, ?> lookupMethod(String name, String authority) {
            return methods.get(name);
          }
        };
    try {
      server =
          Grpc.newServerBuilderForPort(port, credentials)
              .fallbackHandlerRegistry(registry)
              .intercept(this::keep)
              .build()
              .start();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Says what happens at each call of the method. */
  <Q, R> FakeFacade on(MethodDescriptor<Q, R> method, BiConsumer<Q, StreamObserver<R>> behaviour) {
    methods.put(
        method.getFullMethodName(),
        ServerMethodDefinition.create(
            method,
            method.getType() == MethodType.UNARY
                ? ServerCalls.asyncUnaryCall(behaviour::accept)
                : ServerCalls.asyncServerStreamingCall(behaviour::accept)));
    return this;
  }

  int port() {
    return server.getPort();
  }

  ServiceCatalogClient.Builder builder() {
    return ServiceCatalogClient.builder("127.0.0.1:" + port()).plaintext();
  }

  ServiceCatalogClient client() {
    return builder().build();
  }

  /** Returns what the façade fails with for this reason. */
  static StatusRuntimeException failure(Code code, String reason, Message... details) {
    return failure(code, ErrorInfo.newBuilder().setDomain("servicecatalog-grpc").setReason(reason).build(), details);
  }

  static StatusRuntimeException failure(Code code, Message detail, Message... details) {
    com.google.rpc.Status.Builder status = com.google.rpc.Status.newBuilder();
    status.setCode(code.value()).setMessage("because").addDetails(Any.pack(detail));
    for (Message more : details) {
      status.addDetails(Any.pack(more));
    }
    return StatusProto.toStatusRuntimeException(status.build());
  }

  @Override
  public void close() {
    server.shutdownNow();
    try {
      server.awaitTermination();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  private <Q, R> ServerCall.Listener<Q> keep(
      ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
    attempts.add(headers);
    if (head == null) {
      return next.startCall(call, headers);
    }
    call.sendHeaders(head);
    return next.startCall(new HeadSent<>(call), headers);
  }

  private static final class HeadSent<Q, R>
      extends io.grpc.ForwardingServerCall.SimpleForwardingServerCall<Q, R> {

    HeadSent(ServerCall<Q, R> call) {
      super(call);
    }

    @Override
    public void sendHeaders(Metadata headers) {
      // They are sent already.
    }
  }
}
