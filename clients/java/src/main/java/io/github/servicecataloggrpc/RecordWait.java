package io.github.servicecataloggrpc;

import io.github.servicecataloggrpc.v1.ErrorReason;
import io.github.servicecataloggrpc.v1.RecordServiceGrpc;
import io.github.servicecataloggrpc.v1.RecordServiceGrpc.RecordServiceBlockingStub;
import io.github.servicecataloggrpc.v1.RecordStatus;
import io.github.servicecataloggrpc.v1.WatchRecordRequest;
import io.github.servicecataloggrpc.v1.WatchRecordResponse;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.time.Duration;
import java.util.EnumSet;
import java.util.Iterator;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/** One wait for a record to end, over as many watches as it takes. */
final class RecordWait {

  private static final Duration FIRST_PAUSE = Duration.ofMillis(200);
  private static final Duration LONGEST_PAUSE = Duration.ofSeconds(5);

  // After these, another watch may go further; and after UNAVAILABLE, whatever its reason.
  private static final Set<ErrorReason> PASSING_REASONS =
      EnumSet.of(
          ErrorReason.ERROR_REASON_THROTTLED,
          ErrorReason.ERROR_REASON_OVERLOADED,
          ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED);

  // The same, where gRPC or a proxy made the failure.
  private static final Set<Status.Code> PASSING_CODES =
      EnumSet.of(
          Status.Code.UNKNOWN,
          Status.Code.INTERNAL,
          Status.Code.CANCELLED,
          Status.Code.DEADLINE_EXCEEDED,
          Status.Code.ABORTED);

  private final ManagedChannel channel;
  private final String recordId;
  private final Deadline deadline;
  private Duration nextPause = FIRST_PAUSE;

  /** Prepares a wait until the deadline, or without end where that is null. */
  RecordWait(ManagedChannel channel, String recordId, Deadline deadline) {
    this.channel = channel;
    this.recordId = recordId;
    this.deadline = deadline;
  }

  WatchRecordResponse run() throws InterruptedException {
    while (true) {
      StatusRuntimeException failure = null;
      WatchRecordResponse last = null;
      try {
        Iterator<WatchRecordResponse> states = watch();
        while (states.hasNext()) {
          last = states.next();
          nextPause = FIRST_PAUSE;
        }
      } catch (StatusRuntimeException e) {
        failure = e;
      }
      if (last != null && hasEnded(last)) {
        return last;
      }
      if (failure != null && !passes(failure)) {
        throw failure;
      }
      pause(failure);
    }
  }

  private Iterator<WatchRecordResponse> watch() {
    RecordServiceBlockingStub stub = RecordServiceGrpc.newBlockingStub(channel);
    WatchRecordRequest request = WatchRecordRequest.newBuilder().setId(recordId).build();
    return (deadline == null ? stub : stub.withDeadline(deadline)).watchRecord(request);
  }

  private static boolean hasEnded(WatchRecordResponse state) {
    RecordStatus status = state.getRecordDetail().getStatus();
    return status == RecordStatus.RECORD_STATUS_SUCCEEDED || status == RecordStatus.RECORD_STATUS_FAILED;
  }

  private boolean passes(StatusRuntimeException exception) {
    if (Context.current().isCancelled() || channel.isShutdown()) {
      return false;
    }
    Failure failure = Failure.of(exception);
    if (failure.code() == Status.Code.UNAVAILABLE) {
      return true;
    }
    return failure.reasonName().isEmpty()
        ? PASSING_CODES.contains(failure.code())
        : PASSING_REASONS.contains(failure.reason());
  }

  private void pause(StatusRuntimeException failure) throws InterruptedException {
    Duration backoff = nextPause.multipliedBy(ThreadLocalRandom.current().nextInt(80, 121)).dividedBy(100);
    Duration pause = failure == null ? backoff : Failure.of(failure).retryDelay().orElse(backoff);
    nextPause = nextPause.multipliedBy(2);
    if (nextPause.compareTo(LONGEST_PAUSE) > 0) {
      nextPause = LONGEST_PAUSE;
    }
    long nanos = TimeUnit.NANOSECONDS.convert(pause);
    long left = deadline == null ? Long.MAX_VALUE : deadline.timeRemaining(TimeUnit.NANOSECONDS);
    // An interrupt breaks a watch as CANCELLED and stays pending, so that this throws.
    TimeUnit.NANOSECONDS.sleep(Math.min(nanos, left));
    if (left <= nanos) {
      throw Status.DEADLINE_EXCEEDED
          .withDescription("record " + recordId + " had not ended at the deadline")
          .withCause(failure)
          .asRuntimeException();
    }
    // gRPC itself waits for up to two minutes between attempts to connect, long after the façade is back.
    channel.resetConnectBackoff();
  }
}
