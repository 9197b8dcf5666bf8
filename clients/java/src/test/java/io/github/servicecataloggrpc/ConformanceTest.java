package io.github.servicecataloggrpc;

import static java.util.concurrent.TimeUnit.SECONDS;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assertions.fail;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Message;
import com.google.protobuf.util.JsonFormat;
import io.github.servicecataloggrpc.Failure.Violation;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.AbstractBlockingStub;
import io.grpc.stub.MetadataUtils;
import java.io.BufferedReader;
import java.io.IOException;
import java.lang.ProcessBuilder.Redirect;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.Locale;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/** Runs every row of {@code tests/conformance} against the real server; the harness sets the scene and compares. */
class ConformanceTest {

  private static final Path ROOT = Path.of(System.getProperty("basedir", ""), "..", "..").toAbsolutePath().normalize();
  private static final Path PYTHON =
      Path.of(
          System.getenv().getOrDefault("SERVICECATALOG_PYTHON", ROOT.resolve(".venv/bin/python").toString()));
  private static final Set<String> TOKEN_FIELDS =
      Set.of("provision_token", "update_token", "idempotency_token", "terminate_token");

  private static final HttpClient HTTP = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
  private static Process harness;
  private static String url;

  @BeforeAll
  static void startHarness() throws Exception {
    assertTrue(Files.isExecutable(PYTHON), PYTHON + " is not there: run `make install` first");
    harness =
        new ProcessBuilder(PYTHON.toString(), ROOT.resolve("tests/conformance_server.py").toString(), "java")
            .redirectError(Redirect.INHERIT)
            .start();
    BufferedReader output = harness.inputReader();
    String line = CompletableFuture.supplyAsync(() -> output.lines().findFirst().orElse("")).get(60, SECONDS);
    assertTrue(line.startsWith("{"), "the harness did not start");
    url = JsonParser.parseString(line).getAsJsonObject().get("url").getAsString();
  }

  @AfterAll
  static void stopHarness() throws Exception {
    if (harness == null) {
      return;
    }
    harness.getOutputStream().close();
    if (!harness.waitFor(60, SECONDS)) {
      harness.destroyForcibly();
    }
    assertEquals(0, harness.waitFor(), "the harness's exit status");
  }

  @TestFactory
  Stream<DynamicTest> conformance() throws Exception {
    JsonArray rows = send(request("/rows").GET()).getAsJsonArray();
    return StreamSupport.stream(rows.spliterator(), false)
        .map(JsonElement::getAsString)
        .map(row -> DynamicTest.dynamicTest(row, () -> run(row)));
  }

  private static void run(String row) throws Exception {
    String path = "/rows/" + URLEncoder.encode(row, StandardCharsets.UTF_8).replace("+", "%20");
    JsonObject scene = send(request(path + "/begin").POST(BodyPublishers.noBody())).getAsJsonObject();
    JsonObject outcome;
    try (ServiceCatalogClient client =
        ServiceCatalogClient.builder(scene.get("address").getAsString()).plaintext().build()) {
      outcome = scene.get("wait").getAsBoolean() ? waitFor(client, scene) : call(client, scene);
    }
    JsonObject verdict =
        send(request(path + "/end").POST(BodyPublishers.ofString(outcome.toString()))).getAsJsonObject();
    if (!verdict.getAsJsonArray("problems").isEmpty()) {
      fail(row + ": " + verdict.get("problems") + "\nThe outcome was " + outcome);
    }
  }

  private static JsonObject waitFor(ServiceCatalogClient client, JsonObject scene) throws Exception {
    String id = scene.getAsJsonObject("request").get("id").getAsString();
    Duration timeout = deadline(scene);
    try {
      return succeeded(timeout == null ? client.waitFor(id) : client.waitFor(id, timeout));
    } catch (StatusRuntimeException e) {
      return failed(Failure.of(e));
    }
  }

  private static JsonObject call(ServiceCatalogClient client, JsonObject scene) throws Exception {
    Method method = method(client, scene);
    Message request = parse(scene.get("request"), method.getParameterTypes()[0]);
    try {
      return succeeded(invoke(client, scene, request));
    } catch (StatusRuntimeException e) {
      Failure failure = Failure.of(e);
      JsonObject outcome = failed(failure);
      if (scene.get("repeat").getAsBoolean()) {
        outcome.add("repeated", repeat(client, scene, withToken(request, failure.token().orElse(""))));
      }
      return outcome;
    }
  }

  private static JsonObject repeat(ServiceCatalogClient client, JsonObject scene, Message request) throws Exception {
    try {
      return succeeded(invoke(client, scene, request));
    } catch (StatusRuntimeException e) {
      return failed(Failure.of(e));
    }
  }

  private static Message invoke(ServiceCatalogClient client, JsonObject scene, Message request) throws Exception {
    Metadata metadata = new Metadata();
    scene
        .getAsJsonObject("metadata")
        .entrySet()
        .forEach(
            entry ->
                metadata.put(
                    Metadata.Key.of(entry.getKey(), Metadata.ASCII_STRING_MARSHALLER),
                    entry.getValue().getAsString()));
    AbstractBlockingStub<?> stub =
        stub(client, scene).withInterceptors(MetadataUtils.newAttachHeadersInterceptor(metadata));
    Duration deadline = deadline(scene);
    try {
      return (Message)
          method(client, scene).invoke(deadline == null ? stub : stub.withDeadlineAfter(deadline), request);
    } catch (InvocationTargetException e) {
      throw e.getCause() instanceof StatusRuntimeException failure ? failure : e;
    }
  }

  private static AbstractBlockingStub<?> stub(ServiceCatalogClient client, JsonObject scene) {
    String service = scene.get("method").getAsString().split("/")[0];
    return switch (service) {
      case "servicecatalog.v1.ProvisioningService" -> client.provisioning();
      case "servicecatalog.v1.RecordService" -> client.records();
      case "servicecatalog.v1.CatalogService" -> client.catalog();
      case "servicecatalog.v1.ProvisionedProductService" -> client.provisionedProducts();
      default -> throw new AssertionError("there is no service " + service);
    };
  }

  private static Method method(ServiceCatalogClient client, JsonObject scene) {
    String rpc = scene.get("method").getAsString().split("/")[1];
    String name = rpc.substring(0, 1).toLowerCase(Locale.ROOT) + rpc.substring(1);
    return Arrays.stream(stub(client, scene).getClass().getMethods())
        .filter(method -> method.getName().equals(name))
        .findFirst()
        .orElseThrow();
  }

  private static Duration deadline(JsonObject scene) {
    JsonElement seconds = scene.get("deadline");
    return seconds == null || seconds.isJsonNull() ? null : Duration.ofNanos((long) (seconds.getAsDouble() * 1e9));
  }

  private static Message parse(JsonElement json, Class<?> type) throws Exception {
    Message.Builder builder = (Message.Builder) type.getMethod("newBuilder").invoke(null);
    JsonFormat.parser().merge(json.toString(), builder);
    return builder.build();
  }

  private static Message withToken(Message request, String token) {
    FieldDescriptor field =
        request.getDescriptorForType().getFields().stream()
            .filter(candidate -> TOKEN_FIELDS.contains(candidate.getName()))
            .findFirst()
            .orElseThrow();
    return request.toBuilder().setField(field, token).build();
  }

  private static JsonObject succeeded(Message response) throws IOException {
    JsonObject outcome = new JsonObject();
    outcome.addProperty("code", "OK");
    outcome.add("response", JsonParser.parseString(JsonFormat.printer().print(response)));
    return outcome;
  }

  private static JsonObject failed(Failure failure) {
    JsonObject outcome = new JsonObject();
    outcome.addProperty("code", failure.code().name());
    outcome.addProperty("reason", failure.reason().name().substring("ERROR_REASON_".length()));
    outcome.addProperty("message", failure.message());
    JsonArray violations = new JsonArray();
    for (Violation violation : failure.violations()) {
      JsonObject object = new JsonObject();
      object.addProperty("field", violation.field());
      object.addProperty("description", violation.description());
      violations.add(object);
    }
    outcome.add("violations", violations);
    outcome.addProperty("retryDelay", failure.retryDelay().map(delay -> delay.toNanos() / 1e9).orElse(null));
    outcome.addProperty("token", failure.token().orElse(null));
    return outcome;
  }

  private static HttpRequest.Builder request(String path) {
    return HttpRequest.newBuilder(URI.create(url + path)).header("Content-Type", "application/json");
  }

  private static JsonElement send(HttpRequest.Builder request) throws Exception {
    var response = HTTP.send(request.build(), BodyHandlers.ofString());
    assertEquals(200, response.statusCode(), response.body());
    return JsonParser.parseString(response.body());
  }
}
