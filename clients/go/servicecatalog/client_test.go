package servicecatalog_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog"
	servicecatalogv1 "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

func TestConnectRefusesBadArguments(t *testing.T) {
	for name, test := range map[string]struct {
		address string
		options []servicecatalog.Option
		want    string
	}{
		"no address": {"", nil, "address is empty"},
		"plaintext and credentials": {
			"localhost:1",
			[]servicecatalog.Option{servicecatalog.Plaintext(), servicecatalog.WithCredentials(credentials.NewTLS(nil))},
			"only one of Plaintext and WithCredentials",
		},
		"credentials and plaintext": {
			"localhost:1",
			[]servicecatalog.Option{servicecatalog.WithCredentials(credentials.NewTLS(nil)), servicecatalog.Plaintext()},
			"only one of Plaintext and WithCredentials",
		},
		"nil credentials": {"localhost:1", []servicecatalog.Option{servicecatalog.WithCredentials(nil)}, "credentials are nil"},
		"zero deadline":   {"localhost:1", []servicecatalog.Option{servicecatalog.WithDefaultDeadline(0)}, "0s and must be positive"},
		"negative deadline": {
			"localhost:1",
			[]servicecatalog.Option{servicecatalog.WithDefaultDeadline(-time.Second)},
			"-1s and must be positive",
		},
		"what gRPC refuses": {
			"localhost:1",
			[]servicecatalog.Option{servicecatalog.WithDialOptions(grpc.WithDefaultServiceConfig("{"))},
			"service config",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := servicecatalog.Connect(test.address, test.options...)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "facade.sock")
	(&facade{answer: works}).serve(t, listen(t, "unix", path))
	client, err := servicecatalog.Connect("unix:"+path, servicecatalog.Plaintext())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := provision(client, &servicecatalogv1.ProvisionProductRequest{}); err != nil {
		t.Error(err)
	}
}

func TestTLSIsTheDefault(t *testing.T) {
	unknown, _ := certificate(t)
	for name, options := range map[string][]grpc.ServerOption{
		"a server without TLS":            nil,
		"a certificate that nobody knows": {grpc.Creds(credentials.NewServerTLSFromCert(unknown))},
	} {
		t.Run(name, func(t *testing.T) {
			f := &facade{answer: works}
			listener := listen(t, "tcp", "127.0.0.1:0")
			f.serve(t, listener, options...)
			client, err := servicecatalog.Connect(listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, err = client.Records.DescribeRecord(ctx, &servicecatalogv1.DescribeRecordRequest{})
			if err == nil || len(f.seen()) > 0 {
				t.Errorf("got %v and %d calls", err, len(f.seen()))
			}
		})
	}
}

func TestPrivateCA(t *testing.T) {
	own, pool := certificate(t)
	listener := listen(t, "tcp", "127.0.0.1:0")
	(&facade{answer: works}).serve(t, listener, grpc.Creds(credentials.NewServerTLSFromCert(own)))
	client, err := servicecatalog.Connect(listener.Addr().String(),
		servicecatalog.WithCredentials(credentials.NewClientTLSFromCert(pool, "")))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := provision(client, &servicecatalogv1.ProvisionProductRequest{}); err != nil {
		t.Error(err)
	}
}

// certificate returns a self-signed certificate for 127.0.0.1, and a pool in which there is nothing else.
func certificate(t *testing.T) (*tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestDeadline(t *testing.T) {
	own, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for name, test := range map[string]struct {
		ctx     context.Context
		options []servicecatalog.Option
		want    time.Duration
	}{
		"by default":   {t.Context(), nil, 30 * time.Second},
		"another one":  {t.Context(), []servicecatalog.Option{servicecatalog.WithDefaultDeadline(time.Minute)}, time.Minute},
		"the caller's": {own, nil, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			var left time.Duration
			f := &facade{answer: func(c call) error {
				deadline, _ := c.Context().Deadline()
				left = time.Until(deadline)
				return works(c)
			}}
			client := connect(t, f, test.options...)
			if _, err := client.Catalog.SearchProducts(test.ctx, &servicecatalogv1.SearchProductsRequest{}); err != nil {
				t.Fatal(err)
			}
			if left > test.want || left < test.want-10*time.Second {
				t.Errorf("got %v, want %v", left, test.want)
			}
		})
	}
}

func TestDefaultDeadlineEndsACall(t *testing.T) {
	f := &facade{answer: func(c call) error {
		<-c.Context().Done()
		return c.Context().Err()
	}}
	client := connect(t, f, servicecatalog.WithDefaultDeadline(50*time.Millisecond))
	err := provision(client, &servicecatalogv1.ProvisionProductRequest{})
	if status.Code(err) != codes.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestWatchGetsNoDeadline(t *testing.T) {
	bounded := true
	f := &facade{answer: func(c call) error {
		_, bounded = c.Context().Deadline()
		return works(c)
	}}
	watch, err := connect(t, f).Records.WatchRecord(t.Context(), &servicecatalogv1.WatchRecordRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil || bounded {
		t.Errorf("got %v, and a deadline: %v", err, bounded)
	}
}

func TestRetryPolicyIsTheContracts(t *testing.T) {
	const name = "servicecatalog_grpc_service_config.json"
	contract, err := os.ReadFile("../../../proto/servicecatalog/v1/" + name)
	if err != nil {
		t.Skip("the contract is not here: ", err)
	}
	own, err := os.ReadFile(name)
	if err != nil || string(own) != string(contract) {
		t.Errorf("%s is not what proto/ says: run make generate", name)
	}
}

func TestRetries(t *testing.T) {
	for code, want := range map[codes.Code]int{
		codes.Unavailable:       3,
		codes.ResourceExhausted: 1,
		codes.Unknown:           1,
		codes.DeadlineExceeded:  1,
		codes.Aborted:           1,
		codes.Internal:          1,
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			f := &facade{answer: func(c call) error {
				if c.number < 3 {
					return status.Error(code, "not now")
				}
				return works(c)
			}}
			err := provision(connect(t, f), &servicecatalogv1.ProvisionProductRequest{})
			if len(f.seen()) != want || (err == nil) != (want == 3) {
				t.Errorf("got %v after %d attempts, want %d", err, len(f.seen()), want)
			}
		})
	}
}

func TestRetriesEndWithTheFailureOfTheLastAttempt(t *testing.T) {
	f := &facade{answer: func(call) error { return status.Error(codes.Unavailable, "not today") }}
	// The pauses between attempts are not what this is about.
	client := connect(t, f, servicecatalog.WithDialOptions(grpc.WithDefaultServiceConfig(`{"methodConfig": [{"name": [{}],
		"retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.001s", "maxBackoff": "0.001s", "backoffMultiplier": 1,
			"retryableStatusCodes": ["UNAVAILABLE"]}}]}`)))
	err := provision(client, &servicecatalogv1.ProvisionProductRequest{})
	if err.Error() != "servicecatalog: Unavailable: not today" || len(f.seen()) != 3 {
		t.Errorf("got %v after %d attempts", err, len(f.seen()))
	}
}

func TestCallersDialOptionsWin(t *testing.T) {
	f := &facade{answer: works}
	listener := listen(t, "tcp", "127.0.0.1:0")
	f.serve(t, listener)
	client, err := servicecatalog.Connect(listener.Addr().String(),
		servicecatalog.WithDialOptions(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := provision(client, &servicecatalogv1.ProvisionProductRequest{}); err != nil {
		t.Error(err)
	}
}

func TestCloseOfAClientOfOtherStubs(t *testing.T) {
	if err := new(servicecatalog.Client).Close(); err != nil {
		t.Error(err)
	}
}
