package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

const maxMessageBytes = 512

// meanings holds what AWS's error codes mean to callers: coarser than the façade's table.
var meanings = map[string]struct {
	code   codes.Code
	reason string
}{
	"InvalidParametersException": {codes.InvalidArgument, "INVALID_PARAMETERS"},
	"ValidationException":        {codes.InvalidArgument, "INVALID_PARAMETERS"},
	"DuplicateResourceException": {codes.AlreadyExists, "ALREADY_EXISTS"},
	"ResourceNotFoundException":  {codes.NotFound, "RESOURCE_NOT_FOUND"},
	"AccessDeniedException":      {codes.PermissionDenied, "ACCESS_DENIED"},
	"Throttling":                 {codes.ResourceExhausted, "THROTTLED"},
	"ThrottlingException":        {codes.ResourceExhausted, "THROTTLED"},
	"RequestLimitExceeded":       {codes.ResourceExhausted, "THROTTLED"},
	"TooManyRequestsException":   {codes.ResourceExhausted, "THROTTLED"},
}

func invalidRequest(violations checks, call *call) error {
	message := violations[0].Field + ": " + violations[0].Description
	if len(violations) > 1 {
		message += fmt.Sprintf(" (and %d more)", len(violations)-1)
	}
	return failure(codes.InvalidArgument, "INVALID_REQUEST", message, call, &errdetails.BadRequest{FieldViolations: violations})
}

// failed returns what the error of a call to AWS means: where in doubt UNKNOWN, which promises nothing.
func failed(ctx context.Context, err error, call *call) error {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) {
		call.requestID = answer.RequestID
	}
	var refusal smithy.APIError
	if errors.As(err, &refusal) {
		call.errorCode = refusal.ErrorCode()
		if meaning, ok := meanings[call.errorCode]; ok {
			return failure(meaning.code, meaning.reason, refusal.ErrorMessage(), call)
		}
		if answer != nil && answer.HTTPStatusCode() >= 500 {
			return outcomeUnknown(call)
		}
		return failure(codes.Unknown, "UNMAPPED_AWS_ERROR", refusal.ErrorMessage(), call)
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		const message = "the deadline passed; AWS may have acted: repeat with the same token"
		return failure(codes.DeadlineExceeded, "DEADLINE_EXCEEDED", message, call)
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err() // for the access line: the caller has gone
	}
	if notConnected(err) {
		const message = "AWS Service Catalog could not be reached; nothing happened"
		return failure(codes.Unavailable, "UPSTREAM_UNREACHABLE", message, call)
	}
	return outcomeUnknown(call)
}

func outcomeUnknown(call *call) error {
	const message = "AWS may have acted and its answer was lost: repeat with the same token"
	return failure(codes.Unknown, "OUTCOME_UNKNOWN", message, call)
}

// notConnected says whether there was no connection on which a request could have left.
func notConnected(err error) bool {
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	return errors.As(err, &certificate) || errors.As(err, &network) && (network.Op == "dial" || network.Op == "proxyconnect")
}

// failure returns an error with the details given and an ErrorInfo of what is known of the call.
func failure(code codes.Code, reason, message string, call *call, details ...protoadapt.MessageV1) error {
	call.reason = reason
	info := &errdetails.ErrorInfo{Reason: reason, Domain: "servicecatalog-grpc", Metadata: map[string]string{
		"aws_operation": "ProvisionProduct",
	}}
	for name, value := range map[string]string{
		"aws_error_code": call.errorCode, "aws_request_id": call.requestID, "idempotency_token": call.token,
	} {
		if value != "" {
			info.Metadata[name] = value
		}
	}
	plain := status.New(code, strings.ToValidUTF8(message[:min(len(message), maxMessageBytes)], ""))
	detailed, err := plain.WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if err != nil {
		return plain.Err() // without details rather than not at all
	}
	return detailed.Err()
}
