package io.github.servicecataloggrpc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.github.servicecataloggrpc.v1.CatalogServiceGrpc;
import io.github.servicecataloggrpc.v1.DescribeProductRequest;
import io.github.servicecataloggrpc.v1.DescribeProductResponse;
import io.github.servicecataloggrpc.v1.RecordServiceGrpc;
import io.github.servicecataloggrpc.v1.WatchRecordRequest;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.ServerCredentials;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.TlsServerCredentials;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.TrustManagerFactory;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Timeout(30)
class ServiceCatalogClientTest {

  private static final DescribeProductRequest REQUEST = DescribeProductRequest.newBuilder().setId("prod-1").build();

  private Optional<Deadline> deadline;

  @Test
  void plaintextAndCredentialsExcludeEachOther() {
    ServiceCatalogClient.Builder plaintext = ServiceCatalogClient.builder("127.0.0.1:1").plaintext();
    ServiceCatalogClient.Builder secure =
        ServiceCatalogClient.builder("127.0.0.1:1").credentials(TlsChannelCredentials.create());

    assertThrows(IllegalStateException.class, () -> plaintext.credentials(TlsChannelCredentials.create()));
    assertThrows(IllegalStateException.class, secure::plaintext);
  }

  @ParameterizedTest
  @ValueSource(longs = {0, -1})
  void defaultDeadlineMustBePositive(long seconds) {
    ServiceCatalogClient.Builder builder = ServiceCatalogClient.builder("127.0.0.1:1");

    assertThrows(IllegalArgumentException.class, () -> builder.defaultDeadline(Duration.ofSeconds(seconds)));
  }

  @Test
  void addressMustBeATarget() {
    assertThrows(NullPointerException.class, () -> ServiceCatalogClient.connect(null));
    assertThrows(IllegalArgumentException.class, () -> ServiceCatalogClient.connect("no such target"));
  }

  @Test
  void unaryCallWithoutDeadlineGetsTheDefault() {
    try (FakeFacade facade = describing();
        ServiceCatalogClient client = facade.client();
        ServiceCatalogClient brief = facade.builder().defaultDeadline(Duration.ofSeconds(3)).build()) {
      client.catalog().describeProduct(REQUEST);
      assertLeft(20, 30);

      brief.catalog().describeProduct(REQUEST);
      assertLeft(0, 3);
    }
  }

  @Test
  void deadlineOfTheCallOrOfItsContextStays() throws Exception {
    ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();
    try (FakeFacade facade = describing();
        ServiceCatalogClient client = facade.client();
        Context.CancellableContext context = Context.current().withDeadlineAfter(60, TimeUnit.SECONDS, timer)) {
      client.catalog().withDeadlineAfter(50, TimeUnit.SECONDS).describeProduct(REQUEST);
      assertLeft(40, 50);

      context.call(() -> client.catalog().describeProduct(REQUEST));
      assertLeft(50, 60);
    } finally {
      timer.shutdownNow();
    }
  }

  @Test
  void watchGetsNoDeadline() {
    try (FakeFacade facade = new FakeFacade();
        ServiceCatalogClient client = facade.client()) {
      facade.on(
          RecordServiceGrpc.getWatchRecordMethod(),
          (request, observer) -> {
            deadline = Optional.ofNullable(Context.current().getDeadline());
            observer.onCompleted();
          });

      client.records().watchRecord(WatchRecordRequest.getDefaultInstance()).hasNext();

      assertEquals(Optional.empty(), deadline);
    }
  }

  @Test
  void configurationOutranksTheDefaults() {
    try (FakeFacade facade = new FakeFacade();
        ServiceCatalogClient client = facade.builder().configure(channel -> channel.disableRetry()).build()) {
      facade.on(
          CatalogServiceGrpc.getDescribeProductMethod(),
          (request, observer) -> observer.onError(Status.UNAVAILABLE.asRuntimeException()));

      assertThrows(StatusRuntimeException.class, () -> client.catalog().describeProduct(REQUEST));

      assertEquals(1, facade.attempts.size());
    }
  }

  @Test
  void closedClientCallsNoMore() {
    try (FakeFacade facade = describing()) {
      ServiceCatalogClient client = facade.client();
      client.close();

      StatusRuntimeException exception =
          assertThrows(StatusRuntimeException.class, () -> client.catalog().describeProduct(REQUEST));

      assertEquals(Code.UNAVAILABLE, Failure.of(exception).code());
    }
  }

  @Test
  void tlsIsTheDefaultAndCredentialsBringAPrivateCa(@TempDir Path directory) throws Exception {
    KeyStore keys = selfSigned(directory);
    try (FakeFacade facade = new FakeFacade(0, server(keys))) {
      describe(facade);
      String address = "localhost:" + facade.port();

      try (ServiceCatalogClient client =
          ServiceCatalogClient.builder(address).credentials(trusting(keys)).build()) {
        client.catalog().describeProduct(REQUEST);
        assertEquals(1, facade.attempts.size());
      }
      try (ServiceCatalogClient client = ServiceCatalogClient.connect(address)) {
        StatusRuntimeException exception =
            assertThrows(StatusRuntimeException.class, () -> client.catalog().describeProduct(REQUEST));
        assertEquals(Code.UNAVAILABLE, Failure.of(exception).code());
        assertTrue(exception.getCause() instanceof javax.net.ssl.SSLHandshakeException, exception::toString);
      }
    }
  }

  private FakeFacade describing() {
    FakeFacade facade = new FakeFacade();
    describe(facade);
    return facade;
  }

  private void describe(FakeFacade facade) {
    facade.on(
        CatalogServiceGrpc.getDescribeProductMethod(),
        (request, observer) -> {
          deadline = Optional.ofNullable(Context.current().getDeadline());
          observer.onNext(DescribeProductResponse.getDefaultInstance());
          observer.onCompleted();
        });
  }

  /** Asserts that the call that came last had about so many seconds left: some are gone before it comes. */
  private void assertLeft(int least, int most) {
    long left = deadline.orElseThrow().timeRemaining(TimeUnit.MILLISECONDS);
    assertTrue(left > 1000 * least && left <= 1000 * most, left + " ms");
  }

  private static KeyStore selfSigned(Path directory) throws Exception {
    Path file = directory.resolve("keys.p12");
    String keytool = Path.of(System.getProperty("java.home"), "bin", "keytool").toString();
    Process process =
        new ProcessBuilder(
                keytool, "-genkeypair", "-alias", "facade", "-keyalg", "EC", "-dname", "CN=localhost", "-ext",
                "SAN=dns:localhost", "-keystore", file.toString(), "-storepass", "secret")
            .redirectErrorStream(true)
            .start();
    String output = new String(process.getInputStream().readAllBytes());
    assertEquals(0, process.waitFor(), output);
    KeyStore keys = KeyStore.getInstance("PKCS12");
    try (InputStream stream = Files.newInputStream(file)) {
      keys.load(stream, "secret".toCharArray());
    }
    return keys;
  }

  private static ServerCredentials server(KeyStore keys) throws Exception {
    KeyManagerFactory factory = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    factory.init(keys, "secret".toCharArray());
    return TlsServerCredentials.newBuilder().keyManager(factory.getKeyManagers()).build();
  }

  private static io.grpc.ChannelCredentials trusting(KeyStore keys) throws Exception {
    KeyStore trusted = KeyStore.getInstance("PKCS12");
    trusted.load(null, null);
    trusted.setCertificateEntry("facade", keys.getCertificate("facade"));
    TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    factory.init(trusted);
    return TlsChannelCredentials.newBuilder().trustManager(factory.getTrustManagers()).build();
  }
}
