package servicecatalog_test

import (
	"context"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog"
	servicecatalogv1 "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

var uuid = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// A write that the contract gets later must not be forgotten: this asks the contract which there are.
func TestEveryWriteGetsAToken(t *testing.T) {
	f := &facade{answer: works}
	client := connect(t, f)
	writes := 0
	for _, stub := range []any{client.Provisioning, client.Records, client.Catalog, client.ProvisionedProducts} {
		for _, method := range reflect.ValueOf(stub).Methods() {
			if method.Type().Out(0).Implements(reflect.TypeFor[grpc.ClientStream]()) {
				continue
			}
			request := reflect.New(method.Type().In(1).Elem())
			message := request.Interface().(proto.Message)
			empty := proto.Clone(message)
			method.Call([]reflect.Value{reflect.ValueOf(t.Context()), request})
			if !proto.Equal(message, empty) {
				t.Errorf("the caller's %T was changed", message)
			}
			sent := f.seen()[len(f.seen())-1].request.ProtoReflect()
			field := tokenOf(sent.Descriptor())
			if field == nil {
				if !proto.Equal(sent.Interface(), empty) {
					t.Errorf("%T was changed: %v", message, sent)
				}
				continue
			}
			writes++
			if token := sent.Get(field).String(); !uuid.MatchString(token) {
				t.Errorf("%T was sent with the token %q", message, token)
			}
		}
	}
	if writes != 4 {
		t.Errorf("%d writes, want 4", writes)
	}
}

func tokenOf(message protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
	for i := range message.Fields().Len() {
		field := message.Fields().Get(i)
		if name := string(field.Name()); strings.HasSuffix(name, "_token") && name != "page_token" {
			return field
		}
	}
	return nil
}

func tokens(f *facade) (all []string) {
	for _, c := range f.seen() {
		all = append(all, c.request.(*servicecatalogv1.ProvisionProductRequest).GetProvisionToken())
	}
	return all
}

func TestEachIntentOfATemplateGetsATokenOfItsOwn(t *testing.T) {
	f := &facade{answer: works}
	client := connect(t, f)
	template := &servicecatalogv1.ProvisionProductRequest{ProvisionedProductName: "one"}
	for range 2 {
		if err := provision(client, template); err != nil {
			t.Fatal(err)
		}
	}
	if all := tokens(f); all[0] == all[1] || template.GetProvisionToken() != "" {
		t.Errorf("got %q, and %q in the template", all, template.GetProvisionToken())
	}
}

func TestCallersTokenStays(t *testing.T) {
	f := &facade{answer: works}
	if err := provision(connect(t, f), &servicecatalogv1.ProvisionProductRequest{ProvisionToken: "mine"}); err != nil {
		t.Fatal(err)
	}
	if all := tokens(f); all[0] != "mine" {
		t.Errorf("got %q", all)
	}
}

func TestKeysInTheMetadataAreLeftToTheFacade(t *testing.T) {
	for _, key := range []string{"idempotency-key", "Idempotency-Key", "x-request-id"} {
		t.Run(key, func(t *testing.T) {
			f := &facade{answer: func(call) error { return status.Error(codes.Internal, "") }}
			client := connect(t, f)
			ctx := metadata.AppendToOutgoingContext(t.Context(), key, "order-17")
			_, err := client.Provisioning.ProvisionProduct(ctx, &servicecatalogv1.ProvisionProductRequest{})
			if all := tokens(f); all[0] != "" || failureOf(t, err).Token != "" {
				t.Errorf("sent %q, failed with %q", all, failureOf(t, err).Token)
			}
			if got := f.seen()[0].metadata.Get(key); len(got) != 1 || got[0] != "order-17" {
				t.Errorf("the metadata has %q", got)
			}
		})
	}
}

func TestRetriesRepeatTheToken(t *testing.T) {
	again := func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		if err := invoke(ctx, method, request, reply, conn, options...); err == nil {
			return nil
		}
		return invoke(ctx, method, request, reply, conn, options...)
	}
	for name, test := range map[string]struct {
		code    codes.Code
		options []servicecatalog.Option
	}{
		"gRPC's": {codes.Unavailable, nil},
		// gRPC puts this interceptor before all that are chained.
		"an interceptor's": {codes.Unknown, []servicecatalog.Option{servicecatalog.WithDialOptions(grpc.WithUnaryInterceptor(again))}},
	} {
		t.Run(name, func(t *testing.T) {
			f := &facade{answer: func(c call) error {
				if c.number == 1 {
					return status.Error(test.code, "")
				}
				return works(c)
			}}
			if err := provision(connect(t, f, test.options...), &servicecatalogv1.ProvisionProductRequest{}); err != nil {
				t.Fatal(err)
			}
			if all := tokens(f); len(all) != 2 || all[0] != all[1] || !uuid.MatchString(all[0]) {
				t.Errorf("got %q", all)
			}
		})
	}
}

func TestNilRequestIsSentAsItIs(t *testing.T) {
	f := &facade{answer: works}
	if err := provision(connect(t, f), nil); err != nil {
		t.Error(err)
	}
}

func TestCallOptionsOfTheCallerStillWork(t *testing.T) {
	f := &facade{answer: func(c call) error {
		c.SetHeader(metadata.Pairs("idempotency-token", "t"))
		c.SetTrailer(metadata.Pairs("x-amzn-requestid", "r"))
		return works(c)
	}}
	var header, trailer metadata.MD
	err := provision(connect(t, f), &servicecatalogv1.ProvisionProductRequest{}, grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil || header.Get("idempotency-token")[0] != "t" || trailer.Get("x-amzn-requestid")[0] != "r" {
		t.Errorf("got %v, %v, %v", err, header, trailer)
	}
}
