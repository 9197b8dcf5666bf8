package servicecatalog_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog"
	servicecatalogv1 "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

func failureOf(t *testing.T, err error) *servicecatalog.Error {
	t.Helper()
	failure, ok := errors.AsType[*servicecatalog.Error](err)
	if !ok {
		t.Fatalf("%v is no *Error", err)
	}
	return failure
}

func fail(code codes.Code, message string, details ...protoadapt.MessageV1) error {
	s, err := status.New(code, message).WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func because(reason string, metadata ...string) *errdetails.ErrorInfo {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: "servicecatalog-grpc", Metadata: map[string]string{}}
	for i := 0; i < len(metadata); i += 2 {
		info.Metadata[metadata[i]] = metadata[i+1]
	}
	return info
}

func TestFailureHasWhatTheFacadeSays(t *testing.T) {
	f := &facade{answer: func(call) error {
		return fail(codes.InvalidArgument, "two fields", because("INVALID_REQUEST", "aws_operation", "ProvisionProduct"),
			&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)},
			&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
				{Field: "tags[1].key", Description: "is empty"},
				{Field: "provisioned_product_name", Description: "is missing"},
			}})
	}}
	failure := failureOf(t, provision(connect(t, f), &servicecatalogv1.ProvisionProductRequest{ProvisionToken: "mine"}))
	if failure.Code != codes.InvalidArgument || failure.Message != "two fields" ||
		failure.Reason != servicecatalogv1.ErrorReason_ERROR_REASON_INVALID_REQUEST || failure.ReasonName != "INVALID_REQUEST" ||
		failure.RetryDelay != 1500*time.Millisecond || failure.Token != "mine" ||
		!reflect.DeepEqual(failure.Metadata, map[string]string{"aws_operation": "ProvisionProduct"}) ||
		!reflect.DeepEqual(failure.Violations, []servicecatalog.Violation{
			{Field: "tags[1].key", Description: "is empty"},
			{Field: "provisioned_product_name", Description: "is missing"},
		}) {
		t.Errorf("got %+v", failure)
	}
	if got, want := failure.Error(), "servicecatalog: InvalidArgument (INVALID_REQUEST): two fields"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if s, ok := status.FromError(fmt.Errorf("ordering: %w", failure)); !ok || s.Code() != codes.InvalidArgument || len(s.Details()) != 3 {
		t.Errorf("as a status it is %v", s)
	}
}

func TestReason(t *testing.T) {
	for name, test := range map[string]struct {
		info *errdetails.ErrorInfo
		want servicecatalogv1.ErrorReason
		name string
	}{
		"known":     {because("OUTCOME_UNKNOWN"), servicecatalogv1.ErrorReason_ERROR_REASON_OUTCOME_UNKNOWN, "OUTCOME_UNKNOWN"},
		"newer":     {because("REASON_OF_NEXT_YEAR"), servicecatalogv1.ErrorReason_ERROR_REASON_UNSPECIFIED, "REASON_OF_NEXT_YEAR"},
		"a proxy's": {&errdetails.ErrorInfo{Reason: "INTERNAL", Domain: "proxy.example"}, servicecatalogv1.ErrorReason_ERROR_REASON_UNSPECIFIED, ""},
		"no domain": {&errdetails.ErrorInfo{Reason: "INTERNAL"}, servicecatalogv1.ErrorReason_ERROR_REASON_UNSPECIFIED, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := &facade{answer: func(call) error { return fail(codes.Unknown, "", test.info) }}
			failure := failureOf(t, provision(connect(t, f), &servicecatalogv1.ProvisionProductRequest{}))
			if failure.Reason != test.want || failure.ReasonName != test.name {
				t.Errorf("got %v, %q", failure.Reason, failure.ReasonName)
			}
		})
	}
}

func TestToken(t *testing.T) {
	info := because("OUTCOME_UNKNOWN", "idempotency_token", "in the details")
	for name, test := range map[string]struct {
		header string
		err    error
		want   string
	}{
		"in the details": {"in the header", fail(codes.Unknown, "", info), "in the details"},
		"in the header":  {"in the header", fail(codes.Unknown, ""), "in the header"},
		"in the request": {"", fail(codes.Unknown, ""), "in the request"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &facade{answer: func(c call) error {
				if test.header != "" {
					c.SendHeader(metadata.Pairs("idempotency-token", test.header))
				}
				return test.err
			}}
			failure := failureOf(t, provision(connect(t, f), &servicecatalogv1.ProvisionProductRequest{ProvisionToken: "in the request"}))
			if failure.Token != test.want {
				t.Errorf("got %q", failure.Token)
			}
		})
	}
}

func TestTokenOfTheHeaderOutlivesTheDeadline(t *testing.T) {
	f := &facade{answer: func(c call) error {
		c.SendHeader(metadata.Pairs("idempotency-token", "derived"))
		<-c.Context().Done()
		return nil
	}}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "idempotency-key", "k"), 200*time.Millisecond)
	defer cancel()
	_, err := connect(t, f).Provisioning.ProvisionProduct(ctx, &servicecatalogv1.ProvisionProductRequest{})
	if failure := failureOf(t, err); failure.Token != "derived" || failure.Code != codes.DeadlineExceeded {
		t.Errorf("got %+v", failure)
	}
}

func TestTokenThatWasFilledInIsInTheFailure(t *testing.T) {
	f := &facade{answer: func(call) error { return fail(codes.Unknown, "") }}
	client := connect(t, f)
	request := &servicecatalogv1.ProvisionProductRequest{}
	request.ProvisionToken = failureOf(t, provision(client, request)).Token
	provision(client, request)
	if all := tokens(f); all[0] != all[1] || !uuid.MatchString(all[0]) {
		t.Errorf("got %q", all)
	}
}

func TestReadHasNoToken(t *testing.T) {
	f := &facade{answer: func(call) error { return fail(codes.NotFound, "", because("RESOURCE_NOT_FOUND")) }}
	_, err := connect(t, f).Records.DescribeRecord(t.Context(), &servicecatalogv1.DescribeRecordRequest{})
	if failure := failureOf(t, err); failure.Token != "" {
		t.Errorf("got %q", failure.Token)
	}
}

func TestCancelledByTheCaller(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := &facade{answer: func(c call) error {
		cancel()
		<-c.Context().Done()
		return nil
	}}
	_, err := connect(t, f).Provisioning.ProvisionProduct(ctx, &servicecatalogv1.ProvisionProductRequest{})
	if failure := failureOf(t, err); failure.Code != codes.Canceled || failure.Token == "" || !errors.Is(err, context.Canceled) {
		t.Errorf("got %+v", failure)
	}
}

func TestCancelledByAProxyIsNotByTheCaller(t *testing.T) {
	f := &facade{answer: func(call) error { return fail(codes.Canceled, "") }}
	err := provision(connect(t, f), &servicecatalogv1.ProvisionProductRequest{})
	if failure := failureOf(t, err); failure.Code != codes.Canceled || errors.Is(err, context.Canceled) {
		t.Errorf("got %+v", failure)
	}
}

func TestErrorOfAnInterceptorStaysFindable(t *testing.T) {
	errOwn := errors.New("no such key")
	refuse := func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
		return fmt.Errorf("signing: %w", errOwn)
	}
	client := connect(t, &facade{answer: works}, servicecatalog.WithDialOptions(grpc.WithChainUnaryInterceptor(refuse)))
	err := provision(client, &servicecatalogv1.ProvisionProductRequest{})
	if failure := failureOf(t, err); failure.Code != codes.Unknown || failure.Message != "signing: no such key" || !errors.Is(err, errOwn) {
		t.Errorf("got %+v", failure)
	}
}

func TestFailureOfAWatch(t *testing.T) {
	f := &facade{answer: func(c call) error {
		works(c)
		return fail(codes.PermissionDenied, "", because("RECORD_ACCESS_LOST"))
	}}
	watch, err := connect(t, f).Records.WatchRecord(t.Context(), &servicecatalogv1.WatchRecordRequest{})
	for err == nil {
		_, err = watch.Recv()
	}
	if failure := failureOf(t, err); failure.Reason != servicecatalogv1.ErrorReason_ERROR_REASON_RECORD_ACCESS_LOST {
		t.Errorf("got %+v", failure)
	}
}

func TestWatchThatCannotBegin(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := connect(t, &facade{answer: works}).Records.WatchRecord(ctx, &servicecatalogv1.WatchRecordRequest{})
	if failure := failureOf(t, err); failure.Code != codes.Canceled || !errors.Is(err, context.Canceled) {
		t.Errorf("got %+v", failure)
	}
}

// gRPC's own server cannot send broken details, so this one is a bare HTTP server.
func TestBrokenDetails(t *testing.T) {
	for name, details := range map[string]string{
		"no base64":      "%%%",
		"no status":      base64.RawStdEncoding.EncodeToString([]byte("\xff\xff\xff")),
		"another code":   base64.RawStdEncoding.EncodeToString([]byte("\x08\x05")),
		"unknown detail": base64.RawStdEncoding.EncodeToString([]byte("\x08\x02\x1a\x05\x0a\x03a/b")),
		"broken detail":  base64.RawStdEncoding.EncodeToString([]byte("\x08\x02\x1a\x2e\x0a\x28type.googleapis.com/google.rpc.ErrorInfo\x12\x02\xff\xff")),
		"none":           "",
	} {
		t.Run(name, func(t *testing.T) {
			protocols := new(http.Protocols)
			protocols.SetUnencryptedHTTP2(true)
			server := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/grpc")
				w.Header().Set("Idempotency-Token", "in the header")
				w.Header().Set(http.TrailerPrefix+"Grpc-Status", "2")
				w.Header().Set(http.TrailerPrefix+"Grpc-Message", "odd")
				if details != "" {
					w.Header().Set(http.TrailerPrefix+"Grpc-Status-Details-Bin", details)
				}
				w.WriteHeader(http.StatusOK)
			})}
			listener := listen(t, "tcp", "127.0.0.1:0")
			go server.Serve(listener)
			defer server.Close()
			client, err := servicecatalog.Connect(listener.Addr().String(), servicecatalog.Plaintext())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			failure := failureOf(t, provision(client, &servicecatalogv1.ProvisionProductRequest{}))
			if failure.ReasonName != "" || failure.Violations != nil || failure.Token != "in the header" {
				t.Errorf("got %+v", failure)
			}
			t.Log(failure)
		})
	}
}

func TestFailureMadeByHand(t *testing.T) {
	failure := &servicecatalog.Error{Code: codes.NotFound, Message: "no such record"}
	if status.Code(failure) != codes.NotFound || failure.Error() != "servicecatalog: NotFound: no such record" {
		t.Errorf("got %v", failure)
	}
}
