package io.github.servicecataloggrpc;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Context;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import java.time.Duration;
import java.util.concurrent.TimeUnit;

/** Gives a deadline to every unary call that has none. */
final class DeadlineInterceptor implements ClientInterceptor {

  private final long nanos;

  DeadlineInterceptor(Duration deadline) {
    nanos = TimeUnit.NANOSECONDS.convert(deadline);
  }

  @Override
  public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
    boolean needed =
        method.getType() == MethodType.UNARY
            && options.getDeadline() == null
            && Context.current().getDeadline() == null;
    return next.newCall(method, needed ? options.withDeadlineAfter(nanos, TimeUnit.NANOSECONDS) : options);
  }
}
