"""servicecatalog-grpc: a gRPC façade over AWS Service Catalog."""
