// Package servicecatalog calls servicecatalog-grpc, a gRPC façade over AWS Service Catalog.
//
// [Connect] returns a [Client], whose fields are the generated stubs of package servicecatalogv1, one for each service of
// the contract. Its calls differ from bare stubs in four ways:
//
//   - A call whose context has no deadline gets one of 30 seconds, see [WithDefaultDeadline]. Watches get none.
//   - A write without an idempotency token gets one, before the first attempt: whatever repeats the call on its way, AWS
//     acts once.
//   - gRPC itself repeats a call that fails with codes.Unavailable, the one code by which the façade promises that nothing
//     happened.
//   - Whatever fails, fails with an [*Error], which carries what the façade says of the failure in Go's own types.
//
// [Client.Wait] follows the record of a request to its end.
//
// # Repeating a write
//
// Each call of a stub is one intent. The request that the caller passes is never changed, so the same one can be used as
// a template for the next intent, which gets a token of its own. To repeat an intent whose outcome is unknown, set the
// token of the failure in the request, as the example does.
//
// No token is made up for a call with the metadata idempotency-key or x-request-id, from which the façade derives one.
package servicecatalog
