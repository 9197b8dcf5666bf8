package servicecatalog

import (
	_ "embed"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	servicecatalogv1 "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

const defaultDeadline = 30 * time.Second

// gRPC itself would pause for up to two minutes between two attempts to connect, long after the façade is back.
var reconnecting = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
	MinConnectTimeout: 20 * time.Second,
}

// A watch does not outlive a connection that died in silence; load balancers forget one after minutes.
var pinging = keepalive.ClientParameters{Time: time.Minute, Timeout: 20 * time.Second}

// The retry policy of all clients; `make generate` copies it from proto/.
//
//go:embed servicecatalog_grpc_service_config.json
var serviceConfig string

// Client holds one connection to the façade, and a stub for each of its services. It is safe for concurrent use.
//
// [Connect] makes one. For tests a Client can be made of other implementations of the stubs: [Client.Wait] needs no more
// than Records.
type Client struct {
	// Provisioning creates and changes provisioned products.
	Provisioning servicecatalogv1.ProvisioningServiceClient

	// Records tells how far requests on provisioned products have come.
	Records servicecatalogv1.RecordServiceClient

	// Catalog finds what can be provisioned.
	Catalog servicecatalogv1.CatalogServiceClient

	// ProvisionedProducts finds, describes and terminates provisioned products.
	ProvisionedProducts servicecatalogv1.ProvisionedProductServiceClient

	conn *grpc.ClientConn
}

// Option changes what [Connect] does by default.
type Option func(*settings) error

type settings struct {
	credentials credentials.TransportCredentials
	deadline    time.Duration
	dialOptions []grpc.DialOption
}

// Connect returns a client of the façade at the address, a gRPC target: HOST:PORT, unix:PATH or dns:///HOST:PORT. See
// https://github.com/grpc/grpc/blob/master/doc/naming.md for all of them.
//
// The transport is TLS with the system's roots, unless [Plaintext] or [WithCredentials] says otherwise.
//
// Connect does not wait for the connection, which the first call makes: its error is about the arguments.
func Connect(address string, options ...Option) (*Client, error) {
	if address == "" {
		return nil, errors.New("servicecatalog: the address is empty")
	}
	s := settings{deadline: defaultDeadline}
	for _, option := range options {
		if err := option(&s); err != nil {
			return nil, fmt.Errorf("servicecatalog: %w", err)
		}
	}
	if s.credentials == nil {
		s.credentials = credentials.NewTLS(nil)
	}
	// The caller's options come last and so win.
	dialOptions := append([]grpc.DialOption{
		grpc.WithTransportCredentials(s.credentials),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithConnectParams(reconnecting),
		grpc.WithKeepaliveParams(pinging),
	}, s.dialOptions...)
	clientConn, err := grpc.NewClient(address, dialOptions...)
	if err != nil {
		return nil, fmt.Errorf("servicecatalog: %w", err)
	}
	c := conn{ClientConn: clientConn, deadline: s.deadline}
	return &Client{
		Provisioning:        servicecatalogv1.NewProvisioningServiceClient(c),
		Records:             servicecatalogv1.NewRecordServiceClient(c),
		Catalog:             servicecatalogv1.NewCatalogServiceClient(c),
		ProvisionedProducts: servicecatalogv1.NewProvisionedProductServiceClient(c),
		conn:                clientConn,
	}, nil
}

// Close closes the connection. Calls that are under way fail with codes.Canceled.
func (c *Client) Close() error {
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

func (c *Client) closed() bool {
	return c.conn != nil && c.conn.GetState() == connectivity.Shutdown
}

// Plaintext leaves out TLS: for loopback, a Unix socket or a sidecar that encrypts.
func Plaintext() Option {
	return WithCredentials(insecure.NewCredentials())
}

// WithCredentials secures the connection in another way than with the system's roots: with a private CA or mutual TLS,
// for instance, by [credentials.NewTLS].
func WithCredentials(c credentials.TransportCredentials) Option {
	return func(s *settings) error {
		if c == nil {
			return errors.New("the credentials are nil")
		}
		if s.credentials != nil {
			return errors.New("only one of Plaintext and WithCredentials can be given, once")
		}
		s.credentials = c
		return nil
	}
}

// WithDefaultDeadline sets how long a call may take whose context has no deadline, in place of 30 seconds. It does not
// apply to watches.
func WithDefaultDeadline(d time.Duration) Option {
	return func(s *settings) error {
		if d <= 0 {
			return fmt.Errorf("the default deadline is %v and must be positive", d)
		}
		s.deadline = d
		return nil
	}
}

// WithDialOptions passes options to gRPC: interceptors, a stats handler such as OpenTelemetry's, keepalive and the like.
//
// Interceptors see a call as it is sent, with its token and its deadline, and gRPC's own error, before it becomes an
// [*Error].
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) error {
		s.dialOptions = append(s.dialOptions, options...)
		return nil
	}
}
