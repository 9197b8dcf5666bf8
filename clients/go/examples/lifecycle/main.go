// Lifecycle takes a bucket through its life: it provisions it, updates it to the next version of the product and
// terminates it, and waits for the end of each.
//
//	go run ./examples/lifecycle [-ca FILE] [ADDRESS]
//
// The address is that of the sandbox which `make run` starts, unless another is given. With the certificate of a private
// CA the connection is encrypted.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog"
	servicecatalogv1 "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

func main() {
	ca := flag.String("ca", "", "the certificate of the CA that the façade's certificate is from")
	flag.Parse()
	address := "127.0.0.1:50051"
	if flag.NArg() > 0 {
		address = flag.Arg(0)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, address, *ca); err != nil {
		fmt.Fprintln(os.Stderr, describe(err))
		os.Exit(1)
	}
}

func run(ctx context.Context, address, ca string) error {
	client, err := connect(address, ca)
	if err != nil {
		return err
	}
	defer client.Close()

	name := "example-" + strings.ToLower(rand.Text()[:8])
	record, err := provision(ctx, client, name)
	if err != nil {
		return err
	}
	if err := wait(ctx, client, record); err != nil {
		return err
	}
	if record, err = update(ctx, client, name); err != nil {
		return err
	}
	if err := wait(ctx, client, record); err != nil {
		return err
	}
	if record, err = terminate(ctx, client, name); err != nil {
		return err
	}
	return wait(ctx, client, record)
}

func connect(address, ca string) (*servicecatalog.Client, error) {
	if ca == "" {
		return servicecatalog.Connect(address, servicecatalog.Plaintext())
	}
	private, err := credentials.NewClientTLSFromFile(ca, "")
	if err != nil {
		return nil, err
	}
	return servicecatalog.Connect(address,
		servicecatalog.WithCredentials(private),
		servicecatalog.WithDefaultDeadline(10*time.Second),
	)
}

func provision(ctx context.Context, client *servicecatalog.Client, name string) (*servicecatalogv1.RecordDetail, error) {
	request := &servicecatalogv1.ProvisionProductRequest{
		Product:                &servicecatalogv1.ProvisionProductRequest_ProductName{ProductName: "s3-bucket"},
		ProvisioningArtifact:   &servicecatalogv1.ProvisionProductRequest_ProvisioningArtifactName{ProvisioningArtifactName: "v1"},
		ProvisionedProductName: name,
		ProvisioningParameters: []*servicecatalogv1.ProvisioningParameter{{Key: "BucketName", Value: &name}},
	}
	response, err := client.Provisioning.ProvisionProduct(ctx, request)
	failure, failed := errors.AsType[*servicecatalog.Error](err)
	if failed && failure.Reason == servicecatalogv1.ErrorReason_ERROR_REASON_OUTCOME_UNKNOWN {
		// The same request with the same token: AWS acts now, or answers with what it has already done.
		request.ProvisionToken = failure.Token
		response, err = client.Provisioning.ProvisionProduct(ctx, request)
	}
	return response.GetRecordDetail(), err
}

func update(ctx context.Context, client *servicecatalog.Client, name string) (*servicecatalogv1.RecordDetail, error) {
	response, err := client.Provisioning.UpdateProvisionedProduct(ctx, &servicecatalogv1.UpdateProvisionedProductRequest{
		ProvisionedProduct:   &servicecatalogv1.UpdateProvisionedProductRequest_ProvisionedProductName{ProvisionedProductName: name},
		ProvisioningArtifact: &servicecatalogv1.UpdateProvisionedProductRequest_ProvisioningArtifactName{ProvisioningArtifactName: "v2"},
	})
	return response.GetRecordDetail(), err
}

func terminate(ctx context.Context, client *servicecatalog.Client, name string) (*servicecatalogv1.RecordDetail, error) {
	response, err := client.ProvisionedProducts.TerminateProvisionedProduct(ctx, &servicecatalogv1.TerminateProvisionedProductRequest{
		ProvisionedProduct: &servicecatalogv1.TerminateProvisionedProductRequest_ProvisionedProductName{ProvisionedProductName: name},
	})
	return response.GetRecordDetail(), err
}

func wait(ctx context.Context, client *servicecatalog.Client, record *servicecatalogv1.RecordDetail) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	last, err := client.Wait(ctx, record.GetRecordId())
	if err != nil {
		return err
	}
	record = last.GetRecordDetail()
	if record.GetStatus() == servicecatalogv1.RecordStatus_RECORD_STATUS_FAILED {
		return fmt.Errorf("%s of %s failed: %v", record.GetRecordType(), record.GetProvisionedProductName(), record.GetRecordErrors())
	}
	fmt.Println(record.GetProvisionedProductName(), record.GetRecordType(), record.GetStatus())
	for _, output := range last.GetRecordOutputs() {
		fmt.Println(" ", output.GetOutputKey(), output.GetOutputValue())
	}
	return nil
}

func describe(err error) string {
	failure, ok := errors.AsType[*servicecatalog.Error](err)
	if !ok || len(failure.Violations) == 0 {
		return err.Error()
	}
	var wrong []string
	for _, violation := range failure.Violations {
		wrong = append(wrong, violation.Field+" "+violation.Description)
	}
	return strings.Join(wrong, "; ")
}
