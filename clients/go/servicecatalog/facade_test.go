package servicecatalog_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog"
	servicecatalogv1 "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

// facade stands in for the server: it answers every method of the contract as `answer` says, and keeps what came.
type facade struct {
	answer func(call) error

	mu    sync.Mutex
	calls []call
}

type call struct {
	grpc.ServerStream
	method   string // such as ProvisionProduct
	number   int    // 1 for the first call
	request  proto.Message
	metadata metadata.MD
}

// serve answers calls on the listener until the test ends.
func (f *facade) serve(tb testing.TB, listener net.Listener, options ...grpc.ServerOption) {
	server := grpc.NewServer(append(options, grpc.UnknownServiceHandler(f.handle))...)
	go server.Serve(listener)
	tb.Cleanup(server.Stop)
}

func (f *facade) handle(_ any, stream grpc.ServerStream) error {
	path, _ := grpc.MethodFromServerStream(stream)
	method := methodOf(path)
	input, err := protoregistry.GlobalTypes.FindMessageByName(method.Input().FullName())
	if err != nil {
		return err
	}
	c := call{ServerStream: stream, method: string(method.Name()), request: input.New().Interface()}
	c.metadata, _ = metadata.FromIncomingContext(stream.Context())
	if err := stream.RecvMsg(c.request); err != nil {
		return err
	}
	f.mu.Lock()
	f.calls = append(f.calls, c)
	c.number = len(f.calls)
	f.mu.Unlock()
	return f.answer(c)
}

// seen returns the calls so far.
func (f *facade) seen() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func methodOf(path string) protoreflect.MethodDescriptor {
	name := strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", ".")
	descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
	if err != nil {
		panic(err)
	}
	return descriptor.(protoreflect.MethodDescriptor)
}

// connect returns a client of a façade on loopback that answers so, in plaintext unless the options say otherwise.
func connect(tb testing.TB, f *facade, options ...servicecatalog.Option) *servicecatalog.Client {
	tb.Helper()
	listener := listen(tb, "tcp", "127.0.0.1:0")
	f.serve(tb, listener)
	client, err := servicecatalog.Connect(listener.Addr().String(), append(options, servicecatalog.Plaintext())...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { client.Close() })
	return client
}

func listen(tb testing.TB, network, address string) net.Listener {
	tb.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		tb.Fatal(err)
	}
	return listener
}

// works answers a call with the method's empty response.
func works(c call) error {
	path, _ := grpc.MethodFromServerStream(c.ServerStream)
	output, err := protoregistry.GlobalTypes.FindMessageByName(methodOf(path).Output().FullName())
	if err != nil {
		return err
	}
	return c.SendMsg(output.New().Interface())
}

func provision(client *servicecatalog.Client, request *servicecatalogv1.ProvisionProductRequest, options ...grpc.CallOption) error {
	_, err := client.Provisioning.ProvisionProduct(context.Background(), request, options...)
	return err
}
