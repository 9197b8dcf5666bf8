package servicecatalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	servicecatalogv1 "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

const (
	firstPause   = 200 * time.Millisecond
	longestPause = 5 * time.Second
)

// Wait follows a record until its request has succeeded or failed, and returns its last state with all outputs. A record
// that ends FAILED is no error: look at the status.
//
// It resumes a watch that breaks, also over a restart of the façade, for as long as the context lasts. Without a deadline
// it waits as long as it takes. What a further watch would not mend is returned as it is, such as codes.NotFound for a
// record that is not there.
//
// At the context's deadline the [*Error] has codes.DeadlineExceeded and matches [context.DeadlineExceeded]; when the
// context is cancelled, codes.Canceled and [context.Canceled]. The record goes on in both cases, and so can another Wait.
func (c *Client) Wait(ctx context.Context, recordID string) (*servicecatalogv1.WatchRecordResponse, error) {
	pause := firstPause
	for {
		last, failure := c.follow(ctx, recordID)
		if ended(last) {
			return last, nil
		}
		if last != nil {
			pause = firstPause
		}
		delay := time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))
		if failure != nil {
			if !resumable(failure) || c.closed() || ctx.Err() != nil && errors.Is(failure, ctx.Err()) {
				return nil, failure
			}
			if failure.RetryDelay > 0 {
				delay = failure.RetryDelay
			}
		}
		select {
		case <-time.After(delay):
			pause = min(2*pause, longestPause)
		case <-ctx.Done():
			return nil, interrupted(ctx, recordID, failure)
		}
	}
}

// follow watches the record until the stream ends, and returns the last state that came, and how the stream failed.
func (c *Client) follow(ctx context.Context, recordID string) (*servicecatalogv1.WatchRecordResponse, *Error) {
	watch, err := c.Records.WatchRecord(ctx, &servicecatalogv1.WatchRecordRequest{Id: recordID})
	var last *servicecatalogv1.WatchRecordResponse
	for err == nil {
		var state *servicecatalogv1.WatchRecordResponse
		if state, err = watch.Recv(); err == nil {
			last = state
		}
	}
	if err == io.EOF {
		return last, nil
	}
	if failure, ok := errors.AsType[*Error](err); ok {
		return last, failure
	}
	return last, newError(ctx, err)
}

func ended(state *servicecatalogv1.WatchRecordResponse) bool {
	switch state.GetRecordDetail().GetStatus() {
	case servicecatalogv1.RecordStatus_RECORD_STATUS_SUCCEEDED, servicecatalogv1.RecordStatus_RECORD_STATUS_FAILED:
		return true
	}
	return false
}

// resumable tells whether another watch may get further than the one that failed.
func resumable(failure *Error) bool {
	if failure.Code == codes.Unavailable {
		return true
	}
	if failure.ReasonName != "" {
		switch failure.Reason {
		case servicecatalogv1.ErrorReason_ERROR_REASON_THROTTLED,
			servicecatalogv1.ErrorReason_ERROR_REASON_OVERLOADED,
			servicecatalogv1.ErrorReason_ERROR_REASON_DEADLINE_EXCEEDED:
			return true
		}
		return false
	}
	// The façade did not make this failure: the connection broke, or a proxy gave up.
	switch failure.Code {
	case codes.Unknown, codes.Internal, codes.Canceled, codes.DeadlineExceeded, codes.Aborted:
		return true
	}
	return false
}

// interrupted returns the failure of a wait whose context ended between two watches, the first of which ended so.
func interrupted(ctx context.Context, recordID string, failure *Error) *Error {
	message := fmt.Sprintf("%v while waiting for record %s", ctx.Err(), recordID)
	if failure != nil {
		message += fmt.Sprintf(", of which the last watch failed with %q", failure.Error())
	}
	return newError(ctx, status.Error(status.FromContextError(ctx.Err()).Code(), message))
}
