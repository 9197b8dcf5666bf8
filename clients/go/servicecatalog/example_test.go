package servicecatalog_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog"
	servicecatalogv1 "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

// A façade that provisions whatever has a name answers here. It loses its first answer of a lost bucket.
var address = func() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	var lost atomic.Bool
	f := &facade{answer: func(c call) error {
		record := &servicecatalogv1.RecordDetail{RecordId: "rec-1", Status: servicecatalogv1.RecordStatus_RECORD_STATUS_SUCCEEDED}
		request, ok := c.request.(*servicecatalogv1.ProvisionProductRequest)
		if !ok {
			return c.SendMsg(&servicecatalogv1.WatchRecordResponse{RecordDetail: record})
		}
		if request.GetProvisionedProductName() == "" {
			return fail(codes.InvalidArgument, "", because("INVALID_REQUEST"), &errdetails.BadRequest{
				FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "provisioned_product_name", Description: "is required"}},
			})
		}
		if request.GetProvisionedProductName() == "lost-bucket" && lost.CompareAndSwap(false, true) {
			return fail(codes.Unknown, "", because("OUTCOME_UNKNOWN", "idempotency_token", request.GetProvisionToken()))
		}
		return c.SendMsg(&servicecatalogv1.ProvisionProductResponse{RecordDetail: record})
	}}
	go grpc.NewServer(grpc.UnknownServiceHandler(f.handle)).Serve(listener)
	return listener.Addr().String()
}()

func Example() {
	client, err := servicecatalog.Connect(address, servicecatalog.Plaintext())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	response, err := client.Provisioning.ProvisionProduct(ctx, &servicecatalogv1.ProvisionProductRequest{
		Product:                &servicecatalogv1.ProvisionProductRequest_ProductName{ProductName: "s3-bucket"},
		ProvisioningArtifact:   &servicecatalogv1.ProvisionProductRequest_ProvisioningArtifactName{ProvisioningArtifactName: "v1"},
		ProvisionedProductName: "my-bucket",
	})
	if err != nil {
		log.Fatal(err)
	}
	last, err := client.Wait(ctx, response.GetRecordDetail().GetRecordId())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(last.GetRecordDetail().GetStatus())
	// Output: RECORD_STATUS_SUCCEEDED
}

func ExampleError() {
	client, err := servicecatalog.Connect(address, servicecatalog.Plaintext())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	_, err = client.Provisioning.ProvisionProduct(context.Background(), &servicecatalogv1.ProvisionProductRequest{})
	var failure *servicecatalog.Error
	if errors.As(err, &failure) {
		fmt.Println(failure.Code, failure.ReasonName)
		for _, violation := range failure.Violations {
			fmt.Println(violation.Field, violation.Description)
		}
	}
	// Output:
	// InvalidArgument INVALID_REQUEST
	// provisioned_product_name is required
}

func Example_repeat() {
	client, err := servicecatalog.Connect(address, servicecatalog.Plaintext())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	request := &servicecatalogv1.ProvisionProductRequest{ProvisionedProductName: "lost-bucket"}
	response, err := client.Provisioning.ProvisionProduct(context.Background(), request)
	failure, failed := errors.AsType[*servicecatalog.Error](err)
	if failed && failure.Reason == servicecatalogv1.ErrorReason_ERROR_REASON_OUTCOME_UNKNOWN {
		// The same request with the same token: AWS acts now, or answers with what it has already done.
		request.ProvisionToken = failure.Token
		response, err = client.Provisioning.ProvisionProduct(context.Background(), request)
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(failure.ReasonName, response.GetRecordDetail().GetRecordId())
	// Output: OUTCOME_UNKNOWN rec-1
}

func ExampleWithCredentials() {
	ca, err := credentials.NewClientTLSFromFile("ca.pem", "")
	if err != nil {
		log.Fatal(err)
	}
	client, err := servicecatalog.Connect("servicecatalog.internal:443", servicecatalog.WithCredentials(ca))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}

func ExampleClient_Wait() {
	client, err := servicecatalog.Connect(address, servicecatalog.Plaintext())
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	last, err := client.Wait(ctx, "rec-1")
	if errors.Is(err, context.DeadlineExceeded) {
		log.Fatal("it still takes its time: wait again")
	}
	if err != nil {
		log.Fatal(err)
	}
	if last.GetRecordDetail().GetStatus() == servicecatalogv1.RecordStatus_RECORD_STATUS_FAILED {
		log.Fatal(last.GetRecordDetail().GetRecordErrors())
	}
	for _, output := range last.GetRecordOutputs() {
		fmt.Println(output.GetOutputKey(), output.GetOutputValue())
	}
	// Output:
}
