package servicecatalog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	servicecatalogv1 "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

const (
	domain        = "servicecatalog-grpc"
	reasonPrefix  = "ERROR_REASON_"
	tokenHeader   = "idempotency-token"
	tokenMetadata = "idempotency_token"
)

// Error is how every call of a [Client] fails. Get it by [errors.As]:
//
//	var failure *servicecatalog.Error
//	if errors.As(err, &failure) { … }
//
// It is an error of gRPC too: [status.FromError] and [status.Code] take it. A call that failed because its deadline passed
// matches [context.DeadlineExceeded], and one that its caller cancelled matches [context.Canceled].
type Error struct {
	// Code is gRPC's code, which says what to do.
	Code codes.Code

	// Reason says why. It is ERROR_REASON_UNSPECIFIED where gRPC or a proxy made the failure, when what happened is
	// unknown, and where the façade is newer than this package and has a reason that this package does not know.
	Reason servicecatalogv1.ErrorReason

	// ReasonName is the reason as it was sent, such as OUTCOME_UNKNOWN. It is empty if gRPC or a proxy made the failure.
	ReasonName string

	// Message is for people. Where AWS refused, it is what AWS said.
	Message string

	// Violations are the fields of the request that break a rule, all of them that were sent.
	Violations []Violation

	// RetryDelay is how long to wait before a repeat, and 0 if nothing was said of it.
	RetryDelay time.Duration

	// Token is the idempotency token of the write that failed: the same request with this token never acts twice. It is
	// empty for a read, and for a write that was sent with a key in its metadata and of which nothing came back.
	Token string

	// Metadata holds what else the façade knows: aws_operation, aws_error_code, aws_request_id.
	Metadata map[string]string

	cause    error
	canceled bool
}

// Violation is one field of a request that breaks a rule.
type Violation struct {
	// Field is the field's protobuf path, such as provisioning_preferences.stack_set_accounts[2].
	Field string

	// Description says what is wrong, without the value.
	Description string
}

// newError returns the failure of a call with this context. Details that cannot be read are left out.
func newError(ctx context.Context, err error) *Error {
	s := statusOf(err)
	e := &Error{
		Code:     s.Code(),
		Message:  s.Message(),
		cause:    err,
		canceled: s.Code() == codes.Canceled && errors.Is(ctx.Err(), context.Canceled),
	}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == domain {
				e.ReasonName = d.GetReason()
				e.Reason = servicecatalogv1.ErrorReason(servicecatalogv1.ErrorReason_value[reasonPrefix+e.ReasonName])
				e.Metadata = d.GetMetadata()
				e.Token = e.Metadata[tokenMetadata]
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Violations = append(e.Violations, Violation{v.GetField(), v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			e.RetryDelay = d.GetRetryDelay().AsDuration()
		}
	}
	return e
}

// statusOf returns the status as the other side sent it: where gRPC gave up repeating, [status.FromError] puts words of
// its own into the message.
func statusOf(err error) *status.Status {
	var carrier interface{ GRPCStatus() *status.Status }
	if errors.As(err, &carrier) {
		if s := carrier.GRPCStatus(); s.Code() != codes.OK {
			return s
		}
	}
	return status.FromContextError(err)
}

// Error returns code, reason and message.
func (e *Error) Error() string {
	if e.ReasonName == "" {
		return fmt.Sprintf("servicecatalog: %v: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("servicecatalog: %v (%s): %s", e.Code, e.ReasonName, e.Message)
}

// GRPCStatus returns the status with all its details, also those that have no field here.
func (e *Error) GRPCStatus() *status.Status {
	if e.cause == nil {
		return status.New(e.Code, e.Message)
	}
	return statusOf(e.cause)
}

// Is makes the failure match [context.DeadlineExceeded] or [context.Canceled].
func (e *Error) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return e.Code == codes.DeadlineExceeded
	case context.Canceled:
		return e.canceled
	}
	return false
}

// Unwrap returns the error of gRPC, or of the interceptor that made it.
func (e *Error) Unwrap() error { return e.cause }
