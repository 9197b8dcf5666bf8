/**
 * The client of servicecatalog-grpc: a thin layer over the generated stubs in {@link io.github.servicecataloggrpc.v1}.
 *
 * <p>{@link io.github.servicecataloggrpc.ServiceCatalogClient} connects, {@link io.github.servicecataloggrpc.Failure}
 * says why a call failed.
 */
package io.github.servicecataloggrpc;
