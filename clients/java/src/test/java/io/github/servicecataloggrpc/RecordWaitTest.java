package io.github.servicecataloggrpc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Duration;
import com.google.rpc.RetryInfo;
import io.github.servicecataloggrpc.v1.RecordDetail;
import io.github.servicecataloggrpc.v1.RecordServiceGrpc;
import io.github.servicecataloggrpc.v1.RecordStatus;
import io.github.servicecataloggrpc.v1.WatchRecordResponse;
import io.grpc.Context;
import io.grpc.InsecureServerCredentials;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.util.ArrayDeque;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.FutureTask;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Timeout(30)
class RecordWaitTest {

  private interface Watch extends Consumer<StreamObserver<WatchRecordResponse>> {}

  private static final java.time.Duration LONG = java.time.Duration.ofSeconds(20);

  private final FakeFacade facade = new FakeFacade();
  private final ServiceCatalogClient client = facade.client();
  private final CountDownLatch watched = new CountDownLatch(1);

  @AfterEach
  void close() {
    client.close();
    facade.close();
  }

  @ParameterizedTest
  @EnumSource(names = {"RECORD_STATUS_SUCCEEDED", "RECORD_STATUS_FAILED"})
  void recordThatEndsIsReturned(RecordStatus end) throws Exception {
    watches(
        observer -> {
          observer.onNext(state(RecordStatus.RECORD_STATUS_CREATED));
          observer.onNext(state(RecordStatus.RECORD_STATUS_IN_PROGRESS_IN_ERROR));
          observer.onNext(state(end));
          observer.onCompleted();
        });

    assertEquals(state(end), client.waitFor("rec-1"));
  }

  @Test
  void recordThatHasEndedIsReturnedEvenIfTheStreamBreaksThen() throws Exception {
    watches(
        observer -> {
          observer.onNext(state(RecordStatus.RECORD_STATUS_SUCCEEDED));
          observer.onError(Status.INTERNAL.asRuntimeException());
        });

    assertEquals(state(RecordStatus.RECORD_STATUS_SUCCEEDED), client.waitFor("rec-1", LONG));
    assertEquals(1, facade.attempts.size());
  }

  @ParameterizedTest
  @CsvSource({
    "UNAVAILABLE, SHUTTING_DOWN",
    "UNAVAILABLE, UPSTREAM_UNREACHABLE",
    "UNAVAILABLE, UPSTREAM_CREDENTIALS",
    "UNAVAILABLE, NOT_YET_CONSISTENT",
    "UNAVAILABLE, SOMETHING_NEW",
    "RESOURCE_EXHAUSTED, THROTTLED",
    "RESOURCE_EXHAUSTED, OVERLOADED",
    "DEADLINE_EXCEEDED, DEADLINE_EXCEEDED"
  })
  void isResumedAfterReasonsThatPass(Code code, String reason) throws Exception {
    watches(broken(FakeFacade.failure(code, reason)), this::succeed);

    assertEquals(state(RecordStatus.RECORD_STATUS_SUCCEEDED), client.waitFor("rec-1", LONG));
    assertEquals(2, facade.attempts.size());
  }

  @ParameterizedTest
  @ValueSource(strings = {"UNAVAILABLE", "UNKNOWN", "INTERNAL", "CANCELLED", "DEADLINE_EXCEEDED", "ABORTED"})
  void isResumedAfterWhatGrpcOrAProxyMade(String code) throws Exception {
    watches(broken(Code.valueOf(code).toStatus().asRuntimeException()), this::succeed);

    assertEquals(state(RecordStatus.RECORD_STATUS_SUCCEEDED), client.waitFor("rec-1", LONG));
    assertEquals(2, facade.attempts.size());
  }

  @Test
  void isResumedAfterAStreamThatEndsTooEarly() throws Exception {
    watches(
        observer -> {
          observer.onNext(state(RecordStatus.RECORD_STATUS_IN_PROGRESS));
          observer.onCompleted();
        },
        StreamObserver::onCompleted,
        this::succeed);

    assertEquals(state(RecordStatus.RECORD_STATUS_SUCCEEDED), client.waitFor("rec-1", LONG));
    assertEquals(3, facade.attempts.size());
  }

  @ParameterizedTest
  @CsvSource({
    "INVALID_ARGUMENT, INVALID_REQUEST",
    "NOT_FOUND, RESOURCE_NOT_FOUND",
    "PERMISSION_DENIED, RECORD_ACCESS_LOST",
    "INTERNAL, INTERNAL",
    "UNKNOWN, UNMAPPED_AWS_ERROR",
    "UNKNOWN, SOMETHING_NEW"
  })
  void otherReasonsAreThrown(Code code, String reason) {
    watches(broken(FakeFacade.failure(code, reason)));

    Failure failure = failureOf(() -> client.waitFor("rec-1", LONG));

    assertEquals(code, failure.code());
    assertEquals(reason, failure.reasonName());
    assertEquals(1, facade.attempts.size());
  }

  @ParameterizedTest
  @ValueSource(strings = {"UNIMPLEMENTED", "UNAUTHENTICATED", "NOT_FOUND", "RESOURCE_EXHAUSTED"})
  void otherCodesAreThrown(String code) {
    watches(broken(Code.valueOf(code).toStatus().asRuntimeException()));

    assertEquals(Code.valueOf(code), failureOf(() -> client.waitFor("rec-1", LONG)).code());
  }

  @Test
  void pauseIsTheDelayThatTheFailureAsksFor() throws Exception {
    RetryInfo retry = RetryInfo.newBuilder().setRetryDelay(Duration.newBuilder().setNanos(700_000_000)).build();
    watches(broken(FakeFacade.failure(Code.RESOURCE_EXHAUSTED, "THROTTLED", retry)), this::succeed);

    long start = System.nanoTime();
    client.waitFor("rec-1", LONG);

    assertTrue(System.nanoTime() - start >= TimeUnit.MILLISECONDS.toNanos(700));
  }

  @Test
  void pausesGrowUntilAMessageArrives() throws Exception {
    StatusRuntimeException failure = FakeFacade.failure(Code.RESOURCE_EXHAUSTED, "OVERLOADED");
    AtomicInteger count = new AtomicInteger();
    long[] at = new long[6];
    facade.on(
        RecordServiceGrpc.getWatchRecordMethod(),
        (request, observer) -> {
          int watch = count.getAndIncrement();
          at[watch] = System.nanoTime();
          if (watch == 5) {
            succeed(observer);
          } else {
            if (watch == 3) {
              observer.onNext(state(RecordStatus.RECORD_STATUS_IN_PROGRESS));
            }
            observer.onError(failure);
          }
        });

    client.waitFor("rec-1", LONG);

    assertTrue(at[3] - at[2] > TimeUnit.MILLISECONDS.toNanos(600), "the third pause is 0.8 s, give or take a fifth");
    assertTrue(at[4] - at[3] < at[3] - at[2], "after a message it is 0.2 s again");
  }

  @Test
  void endsAtTheDeadlineWhileWatching() {
    watches(observer -> observer.onNext(state(RecordStatus.RECORD_STATUS_IN_PROGRESS)));

    assertEndsAtTheDeadline(() -> client.waitFor("rec-1", java.time.Duration.ofMillis(500)));
  }

  @Test
  void endsAtTheDeadlineWhilePausing() {
    RetryInfo retry = RetryInfo.newBuilder().setRetryDelay(Duration.newBuilder().setSeconds(60)).build();
    watches(broken(FakeFacade.failure(Code.RESOURCE_EXHAUSTED, "THROTTLED", retry)));

    Failure failure = assertEndsAtTheDeadline(() -> client.waitFor("rec-1", java.time.Duration.ofMillis(500)));

    assertEquals("record rec-1 had not ended at the deadline", failure.message());
  }

  @Test
  void endsAtTheDeadlineOfTheContextWhileWatching() {
    watches(observer -> observer.onNext(state(RecordStatus.RECORD_STATUS_IN_PROGRESS)));

    assertEndsAtTheDeadline(() -> within500Millis(() -> client.waitFor("rec-1")));
  }

  @Test
  void endsAtTheDeadlineOfTheContextWhilePausing() {
    RetryInfo retry = RetryInfo.newBuilder().setRetryDelay(Duration.newBuilder().setSeconds(60)).build();
    watches(broken(FakeFacade.failure(Code.RESOURCE_EXHAUSTED, "THROTTLED", retry)));

    assertEndsAtTheDeadline(() -> within500Millis(() -> client.waitFor("rec-1", LONG)));
  }

  @Test
  void endsWhenTheThreadIsInterruptedWhileWatching() throws Exception {
    watches(observer -> observer.onNext(state(RecordStatus.RECORD_STATUS_IN_PROGRESS)));

    assertInterruptible();
  }

  @Test
  void endsWhenTheThreadIsInterruptedWhilePausing() throws Exception {
    RetryInfo retry = RetryInfo.newBuilder().setRetryDelay(Duration.newBuilder().setSeconds(60)).build();
    watches(broken(FakeFacade.failure(Code.RESOURCE_EXHAUSTED, "THROTTLED", retry)));

    assertInterruptible();
  }

  @Test
  void endsWhenTheContextIsCancelled() throws Exception {
    watches(observer -> observer.onNext(state(RecordStatus.RECORD_STATUS_IN_PROGRESS)));
    Context.CancellableContext context = Context.current().withCancellation();
    FutureTask<WatchRecordResponse> wait = start(context.wrap(() -> client.waitFor("rec-1")));

    context.cancel(null);

    assertEquals(Code.CANCELLED, Failure.of(assertThrows(ExecutionException.class, wait::get)).code());
    assertEquals(1, facade.attempts.size());
  }

  @Test
  void endsWhenTheClientIsClosed() throws Exception {
    watches(observer -> observer.onNext(state(RecordStatus.RECORD_STATUS_IN_PROGRESS)));
    FutureTask<WatchRecordResponse> wait = start(() -> client.waitFor("rec-1"));

    client.close();

    assertEquals(Code.UNAVAILABLE, Failure.of(assertThrows(ExecutionException.class, wait::get)).code());
  }

  @Test
  void survivesARestart() throws Exception {
    watches(observer -> observer.onNext(state(RecordStatus.RECORD_STATUS_IN_PROGRESS)));
    FutureTask<WatchRecordResponse> wait = start(() -> client.waitFor("rec-1", LONG));
    int port = facade.port();

    facade.close();
    // Long enough for gRPC to have failed to connect a few times.
    Thread.sleep(2500);
    assertFalse(wait.isDone());
    try (FakeFacade next = new FakeFacade(port, InsecureServerCredentials.create())) {
      next.on(RecordServiceGrpc.getWatchRecordMethod(), (request, observer) -> succeed(observer));

      assertEquals(state(RecordStatus.RECORD_STATUS_SUCCEEDED), wait.get());
    }
  }

  /** Says what each watch does, one after the other; the last goes on for ever. */
  private void watches(Watch... behaviours) {
    Queue<Watch> queue = new ArrayDeque<>(List.of(behaviours));
    facade.on(
        RecordServiceGrpc.getWatchRecordMethod(),
        (request, observer) -> {
          (queue.size() > 1 ? queue.remove() : queue.element()).accept(observer);
          watched.countDown();
        });
  }

  /** Sends a state first, so that gRPC itself does not retry. */
  private static Watch broken(StatusRuntimeException failure) {
    return observer -> {
      observer.onNext(state(RecordStatus.RECORD_STATUS_IN_PROGRESS));
      observer.onError(failure);
    };
  }

  private void succeed(StreamObserver<WatchRecordResponse> observer) {
    observer.onNext(state(RecordStatus.RECORD_STATUS_SUCCEEDED));
    observer.onCompleted();
  }

  private static WatchRecordResponse state(RecordStatus status) {
    return WatchRecordResponse.newBuilder().setRecordDetail(RecordDetail.newBuilder().setStatus(status)).build();
  }

  private FutureTask<WatchRecordResponse> start(Callable<WatchRecordResponse> wait) throws InterruptedException {
    FutureTask<WatchRecordResponse> task = new FutureTask<>(wait);
    new Thread(task).start();
    watched.await();
    return task;
  }

  private static <T> T within500Millis(Callable<T> call) throws Exception {
    ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();
    try (Context.CancellableContext context =
        Context.current().withDeadlineAfter(500, TimeUnit.MILLISECONDS, timer)) {
      return context.call(call);
    } finally {
      timer.shutdownNow();
    }
  }

  private void assertInterruptible() throws InterruptedException {
    FutureTask<WatchRecordResponse> task = new FutureTask<>(() -> client.waitFor("rec-1"));
    Thread thread = new Thread(task);
    thread.start();
    watched.await();
    Thread.sleep(100);

    thread.interrupt();

    assertInstanceOf(InterruptedException.class, assertThrows(ExecutionException.class, task::get).getCause());
    assertEquals(1, facade.attempts.size());
  }

  private static Failure failureOf(Callable<?> call) {
    return Failure.of(assertThrows(StatusRuntimeException.class, call::call));
  }

  private static Failure assertEndsAtTheDeadline(Callable<?> wait) {
    long start = System.nanoTime();
    Failure failure = failureOf(wait);
    long millis = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - start);
    assertEquals(Code.DEADLINE_EXCEEDED, failure.code());
    assertTrue(millis >= 450 && millis < 5000, millis + " ms");
    return failure;
  }
}
