package io.github.servicecataloggrpc;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import io.github.servicecataloggrpc.v1.CatalogServiceGrpc;
import io.github.servicecataloggrpc.v1.CatalogServiceGrpc.CatalogServiceBlockingStub;
import io.github.servicecataloggrpc.v1.ProvisionedProductServiceGrpc;
import io.github.servicecataloggrpc.v1.ProvisionedProductServiceGrpc.ProvisionedProductServiceBlockingStub;
import io.github.servicecataloggrpc.v1.ProvisioningServiceGrpc;
import io.github.servicecataloggrpc.v1.ProvisioningServiceGrpc.ProvisioningServiceBlockingStub;
import io.github.servicecataloggrpc.v1.RecordServiceGrpc;
import io.github.servicecataloggrpc.v1.RecordServiceGrpc.RecordServiceBlockingStub;
import io.github.servicecataloggrpc.v1.WatchRecordResponse;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.Reader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

/**
 * A client of servicecatalog-grpc: one channel, and the four services as blocking stubs.
 *
 * <p>On every call of the channel, whichever kind of stub makes it:
 *
 * <ul>
 *   <li>a write whose request has no token gets a random one, once and before the first attempt, so that every retry
 *       on the way is the same intent. The caller's message stays as it is: the next call with it is a new intent.
 *       Nothing is filled in where the metadata has {@code idempotency-key} or {@code x-request-id}, from which the
 *       façade then derives the token;
 *   <li>a unary call without a deadline gets the {@linkplain Builder#defaultDeadline default};
 *   <li>gRPC repeats what failed with UNAVAILABLE, the one code that promises that nothing happened: 5 attempts at
 *       most, within the call's deadline.
 * </ul>
 *
 * <p>What fails, fails with gRPC's own exception; {@link Failure#of} reads it.
 *
 * <p>Safe for use by any number of threads. Make one for each façade and keep it.
 */
public final class ServiceCatalogClient implements AutoCloseable {

  private static final String SERVICE_CONFIG = "/servicecatalog/v1/servicecatalog_grpc_service_config.json";

  private final ManagedChannel channel;

  private ServiceCatalogClient(ManagedChannel channel) {
    this.channel = channel;
  }

  /**
   * Connects with TLS and Java's own trusted roots. The connection is made by the first call.
   *
   * @param address a gRPC target: {@code HOST:PORT}, {@code unix:PATH} or {@code dns:///HOST:PORT}
   * @return the client, to be closed by the caller
   * @throws IllegalArgumentException if the address is no target
   */
  public static ServiceCatalogClient connect(String address) {
    return builder(address).build();
  }

  /**
   * Begins a client with settings of its own.
   *
   * @param address a gRPC target: {@code HOST:PORT}, {@code unix:PATH} or {@code dns:///HOST:PORT}
   * @return the builder
   */
  public static Builder builder(String address) {
    return new Builder(address);
  }

  /**
   * Returns the service that provisions and updates.
   *
   * @return a blocking stub, whose calls throw {@link io.grpc.StatusRuntimeException}
   */
  public ProvisioningServiceBlockingStub provisioning() {
    return ProvisioningServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Returns the service that tells how far requests have come.
   *
   * @return a blocking stub, whose calls throw {@link io.grpc.StatusRuntimeException}
   */
  public RecordServiceBlockingStub records() {
    return RecordServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Returns the service that finds what can be provisioned.
   *
   * @return a blocking stub, whose calls throw {@link io.grpc.StatusRuntimeException}
   */
  public CatalogServiceBlockingStub catalog() {
    return CatalogServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Returns the service that finds, describes and terminates what is provisioned.
   *
   * @return a blocking stub, whose calls throw {@link io.grpc.StatusRuntimeException}
   */
  public ProvisionedProductServiceBlockingStub provisionedProducts() {
    return ProvisionedProductServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Returns the channel, for stubs of other kinds, such as {@code ProvisioningServiceGrpc.newFutureStub(channel)}.
   * Everything that this client does for a call it does for theirs too.
   *
   * @return the channel, which ends with this client
   */
  public Channel channel() {
    return channel;
  }

  /**
   * Waits for a record to end, for as long as it takes or until the deadline of the current {@link Context}.
   *
   * @param recordId the record's identifier
   * @return the record, SUCCEEDED or FAILED, with its outputs and errors
   * @throws InterruptedException if the thread is interrupted
   * @throws io.grpc.StatusRuntimeException as {@link #waitFor(String, Duration)} does
   */
  public WatchRecordResponse waitFor(String recordId) throws InterruptedException {
    return new RecordWait(channel, recordId, Context.current().getDeadline()).run();
  }

  /**
   * Waits for a record to end. A watch that breaks, because the façade restarts for instance, is resumed after the
   * delay that the failure asks for, else after a pause that grows from 0.2 to 5 seconds.
   *
   * <p>A record that ends FAILED is returned like any other: its {@code record_errors} say why.
   *
   * @param recordId the record's identifier
   * @param timeout how long to wait at most
   * @return the record, SUCCEEDED or FAILED, with its outputs and errors
   * @throws InterruptedException if the thread is interrupted
   * @throws io.grpc.StatusRuntimeException with DEADLINE_EXCEEDED if the record has not ended by then or by the
   *     deadline of the current {@link Context}, and with whatever failure a repeat would not mend, e.g. NOT_FOUND
   */
  public WatchRecordResponse waitFor(String recordId, Duration timeout) throws InterruptedException {
    Deadline deadline = Deadline.after(TimeUnit.NANOSECONDS.convert(timeout), TimeUnit.NANOSECONDS);
    Deadline outer = Context.current().getDeadline();
    return new RecordWait(channel, recordId, outer == null ? deadline : deadline.minimum(outer)).run();
  }

  /** Closes the channel. Calls under way end with UNAVAILABLE. */
  @Override
  public void close() {
    channel.shutdownNow();
  }

  /** The settings of a client to be. */
  public static final class Builder {

    private final String address;
    private ChannelCredentials credentials;
    private Duration defaultDeadline = Duration.ofSeconds(30);
    private Consumer<? super ManagedChannelBuilder<?>> configuration = builder -> {};

    private Builder(String address) {
      this.address = Objects.requireNonNull(address, "address");
    }

    /**
     * Does without TLS: for loopback, a Unix socket or a sidecar.
     *
     * @return this builder
     * @throws IllegalStateException if there are credentials already
     */
    public Builder plaintext() {
      return credentials(InsecureChannelCredentials.create());
    }

    /**
     * Takes gRPC's own credentials, e.g. {@link TlsChannelCredentials#newBuilder()} for a private CA or for mTLS.
     *
     * @param credentials what to secure the connection with; TLS with Java's trusted roots by default
     * @return this builder
     * @throws IllegalStateException if there are credentials already, or {@link #plaintext()} was chosen
     */
    public Builder credentials(ChannelCredentials credentials) {
      if (this.credentials != null) {
        throw new IllegalStateException("plaintext and credentials exclude each other: choose one, once");
      }
      this.credentials = Objects.requireNonNull(credentials, "credentials");
      return this;
    }

    /**
     * Sets the deadline of every unary call that has none, of its own or from the current {@link Context}. A watch gets
     * none.
     *
     * @param deadline how long such a call may take, retries included; 30 seconds by default
     * @return this builder
     * @throws IllegalArgumentException if it is not positive
     */
    public Builder defaultDeadline(Duration deadline) {
      if (deadline.isZero() || deadline.isNegative()) {
        throw new IllegalArgumentException("the default deadline must be positive, is " + deadline);
      }
      this.defaultDeadline = deadline;
      return this;
    }

    /**
     * Passes gRPC's own options through: interceptors, executors, keepalive, or the instrumentation that
     * {@code GrpcOpenTelemetry} adds. It runs last, so what it sets outranks the defaults. Interceptors added here see a
     * call before this client's own do, so the metadata they add counts.
     *
     * @param configuration what to do with the channel's builder
     * @return this builder
     */
    public Builder configure(Consumer<? super ManagedChannelBuilder<?>> configuration) {
      this.configuration = Objects.requireNonNull(configuration, "configuration");
      return this;
    }

    /**
     * Makes the client. The connection is made by the first call.
     *
     * @return the client, to be closed by the caller
     * @throws IllegalArgumentException if the address is no target
     */
    public ServiceCatalogClient build() {
      ManagedChannelBuilder<?> builder =
          Grpc.newChannelBuilder(address, credentials != null ? credentials : TlsChannelCredentials.create())
              .intercept(new TokenInterceptor(), new DeadlineInterceptor(defaultDeadline))
              .enableRetry()
              .defaultServiceConfig(serviceConfig())
              // A watch can be silent for long. Without pings it would never learn that its connection is gone.
              .keepAliveTime(1, TimeUnit.MINUTES);
      configuration.accept(builder);
      return new ServiceCatalogClient(builder.build());
    }

    private static Map<String, ?> serviceConfig() {
      try (Reader reader =
          new InputStreamReader(
              ServiceCatalogClient.class.getResourceAsStream(SERVICE_CONFIG), StandardCharsets.UTF_8)) {
        return new Gson().fromJson(reader, new TypeToken<Map<String, Object>>() {});
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }
}
