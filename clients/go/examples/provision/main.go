// Provision makes a bucket in the sandbox that `make run` starts.
//
//	go run ./examples/provision
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog"
	servicecatalogv1 "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

func main() {
	name := "bucket-" + strings.ToLower(rand.Text()[:8])
	if err := provision(context.Background(), name); err != nil {
		log.Fatal(err)
	}
}

func provision(ctx context.Context, name string) error {
	client, err := servicecatalog.Connect("127.0.0.1:50051", servicecatalog.Plaintext())
	if err != nil {
		return err
	}
	defer client.Close()

	response, err := client.Provisioning.ProvisionProduct(ctx, &servicecatalogv1.ProvisionProductRequest{
		Product:                &servicecatalogv1.ProvisionProductRequest_ProductName{ProductName: "s3-bucket"},
		ProvisioningArtifact:   &servicecatalogv1.ProvisionProductRequest_ProvisioningArtifactName{ProvisioningArtifactName: "v1"},
		ProvisionedProductName: name,
		ProvisioningParameters: []*servicecatalogv1.ProvisioningParameter{{Key: "BucketName", Value: &name}},
	})
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	last, err := client.Wait(ctx, response.GetRecordDetail().GetRecordId())
	if err != nil {
		return err
	}
	fmt.Println(name, last.GetRecordDetail().GetStatus())
	for _, output := range last.GetRecordOutputs() {
		fmt.Println(output.GetOutputKey(), output.GetOutputValue())
	}
	return nil
}
