// Peer is the façade's ProvisionProduct in Go, for `make bench` to compare the façade with. See ../README.md.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/servicecatalog"
	//lint:ignore SA1019 no longer maintained, but it is what Go services that call AWS are instrumented with
	"go.opentelemetry.io/contrib/instrumentation/github.com/aws/aws-sdk-go-v2/otelaws"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

const (
	// More than the calls in flight of any run: a connection that does not fit among the idle ones is closed, and the
	// next call would pay for a handshake.
	maxIdleConnections = 2048

	connectTimeout   = 5 * time.Second
	drainTimeout     = 10 * time.Second
	telemetryTimeout = 2 * time.Second
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "the `HOST:PORT` to serve gRPC on")
	flag.Parse()
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *listen); err != nil {
		slog.Error(err.Error())
		os.Exit(1)
	}
}

// run serves until the context ends, and then drains.
func run(ctx context.Context, listen string) error {
	configuration, err := config.LoadDefaultConfig(ctx,
		// As the façade has it of botocore: the SDK itself repeats nothing.
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
		config.WithHTTPClient(awshttp.NewBuildableClient().
			WithDialerOptions(func(dialer *net.Dialer) { dialer.Timeout = connectTimeout }).
			WithTransportOptions(func(transport *http.Transport) {
				transport.MaxIdleConns = maxIdleConnections
				transport.MaxIdleConnsPerHost = maxIdleConnections
			})),
	)
	if err != nil {
		return err
	}
	if configuration.Region == "" {
		return errors.New("no region: set AWS_REGION")
	}

	configuration.HTTPClient = wholeBodies{configuration.HTTPClient}

	var options []grpc.ServerOption
	// Without an endpoint there is no instrumentation at all, rather than one that feeds providers which drop everything.
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" {
		stop, err := startTelemetry(ctx)
		if err != nil {
			return err
		}
		defer stop()
		options = append(options, grpc.StatsHandler(otelgrpc.NewServerHandler()))
		otelaws.AppendMiddlewares(&configuration.APIOptions)
	}

	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer(options...)
	pb.RegisterProvisioningServiceServer(server, &provisioning{aws: servicecatalog.NewFromConfig(configuration)})
	healthy := health.NewServer() // which says SERVING of "" by itself
	healthy.SetServingStatus(pb.ProvisioningService_ServiceDesc.ServiceName, grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(server, healthy)

	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		healthy.Shutdown()
		// Someone who watches the health service would hold up a graceful stop for ever.
		defer time.AfterFunc(drainTimeout, server.Stop).Stop()
		server.GracefulStop()
	}()
	fmt.Println("gRPC on", listener.Addr())
	if err := server.Serve(listener); err != nil {
		return err
	}
	<-stopped
	return nil
}

// startTelemetry exports traces and metrics as OpenTelemetry's standard variables say, and returns what flushes and stops
// them.
func startTelemetry(ctx context.Context) (stop func(), err error) {
	spans, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, err
	}
	metrics, err := otlpmetricgrpc.New(ctx)
	if err != nil {
		return nil, err
	}
	tracer := sdktrace.NewTracerProvider(sdktrace.WithBatcher(spans))
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(metrics)))
	otel.SetTracerProvider(tracer)
	otel.SetMeterProvider(meter)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), telemetryTimeout)
		defer cancel()
		if err := errors.Join(tracer.Shutdown(ctx), meter.Shutdown(ctx)); err != nil {
			slog.Warn("telemetry was not flushed", "error", err)
		}
	}, nil
}

// wholeBodies hands each request's body to net/http as what it is, bytes in memory. The SDK closes its own as soon as an
// answer begins, which net/http may take for a write that failed: it then drops the connection, and with it an answer whose
// body comes after its headers (https://github.com/aws/aws-sdk-go-v2/issues/2737). The SDK's remedy is to repeat the call.
type wholeBodies struct{ aws.HTTPClient }

func (c wholeBodies) Do(request *http.Request) (*http.Response, error) {
	if request.Body != nil {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return nil, err
		}
		whole := request.WithContext(request.Context())
		whole.Body = io.NopCloser(bytes.NewReader(body))
		request = whole
	}
	return c.HTTPClient.Do(request)
}
