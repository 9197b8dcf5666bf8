package servicecatalog_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog"
	servicecatalogv1 "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

const (
	inProgress = servicecatalogv1.RecordStatus_RECORD_STATUS_IN_PROGRESS
	succeeded  = servicecatalogv1.RecordStatus_RECORD_STATUS_SUCCEEDED
	failed     = servicecatalogv1.RecordStatus_RECORD_STATUS_FAILED
)

// watch is one stream: the states that it sends, and how it ends.
type watch struct {
	states []servicecatalogv1.RecordStatus
	end    error
}

// script is a RecordService without a network, whose watches go so, one after the other; the last one goes on for ever. It
// keeps the time of each.
type script struct {
	servicecatalogv1.RecordServiceClient
	watches []watch
	times   []time.Time
}

func (s *script) WatchRecord(ctx context.Context, request *servicecatalogv1.WatchRecordRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[servicecatalogv1.WatchRecordResponse], error) {
	w := s.watches[min(len(s.times), len(s.watches)-1)]
	s.times = append(s.times, time.Now())
	return &scriptedStream{watch: w, id: request.GetId()}, nil
}

// pauses returns what lay between the watches.
func (s *script) pauses() (pauses []time.Duration) {
	for i := 1; i < len(s.times); i++ {
		pauses = append(pauses, s.times[i].Sub(s.times[i-1]))
	}
	return pauses
}

type scriptedStream struct {
	grpc.ClientStream
	watch
	id string
}

func (s *scriptedStream) Recv() (*servicecatalogv1.WatchRecordResponse, error) {
	if len(s.states) == 0 {
		return nil, s.end
	}
	response := &servicecatalogv1.WatchRecordResponse{
		RecordDetail: &servicecatalogv1.RecordDetail{RecordId: s.id, Status: s.states[0]},
	}
	s.states = s.states[1:]
	return response, nil
}

// waiting runs the test against these watches, in time that passes at once.
func waiting(t *testing.T, watches []watch, test func(*testing.T, *servicecatalog.Client, *script)) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{watches: watches}
		test(t, &servicecatalog.Client{Records: s}, s)
	})
}

func TestWaitReturnsTheLastState(t *testing.T) {
	for _, end := range []servicecatalogv1.RecordStatus{succeeded, failed} {
		t.Run(end.String(), func(t *testing.T) {
			waiting(t, []watch{{[]servicecatalogv1.RecordStatus{inProgress, end}, io.EOF}}, func(t *testing.T, client *servicecatalog.Client, s *script) {
				last, err := client.Wait(t.Context(), "rec-1")
				if err != nil || last.GetRecordDetail().GetStatus() != end || last.GetRecordDetail().GetRecordId() != "rec-1" {
					t.Errorf("got %v, %v", last, err)
				}
			})
		})
	}
}

func TestWaitTakesTheLastStateOfAStreamThatBreaksAfterIt(t *testing.T) {
	broken := watch{[]servicecatalogv1.RecordStatus{succeeded}, fail(codes.Unavailable, "")}
	waiting(t, []watch{broken}, func(t *testing.T, client *servicecatalog.Client, s *script) {
		if last, err := client.Wait(t.Context(), "rec-1"); err != nil || len(s.times) != 1 {
			t.Errorf("got %v, %v after %d watches", last, err, len(s.times))
		}
	})
}

func TestWaitResumes(t *testing.T) {
	for name, end := range map[string]error{
		"SHUTTING_DOWN":               fail(codes.Unavailable, "", because("SHUTTING_DOWN")),
		"UPSTREAM_UNREACHABLE":        fail(codes.Unavailable, "", because("UPSTREAM_UNREACHABLE")),
		"UPSTREAM_CREDENTIALS":        fail(codes.Unavailable, "", because("UPSTREAM_CREDENTIALS")),
		"NOT_YET_CONSISTENT":          fail(codes.Unavailable, "", because("NOT_YET_CONSISTENT")),
		"a newer UNAVAILABLE":         fail(codes.Unavailable, "", because("REASON_OF_NEXT_YEAR")),
		"THROTTLED":                   fail(codes.ResourceExhausted, "", because("THROTTLED")),
		"OVERLOADED":                  fail(codes.ResourceExhausted, "", because("OVERLOADED")),
		"DEADLINE_EXCEEDED":           fail(codes.DeadlineExceeded, "", because("DEADLINE_EXCEEDED")),
		"a broken connection":         fail(codes.Unavailable, ""),
		"a proxy's UNKNOWN":           fail(codes.Unknown, ""),
		"a proxy's INTERNAL":          fail(codes.Internal, ""),
		"a proxy's CANCELLED":         fail(codes.Canceled, ""),
		"a proxy's DEADLINE_EXCEEDED": fail(codes.DeadlineExceeded, ""),
		"a proxy's ABORTED":           fail(codes.Aborted, ""),
		"an early end":                io.EOF,
	} {
		t.Run(name, func(t *testing.T) {
			watches := []watch{{[]servicecatalogv1.RecordStatus{inProgress}, end}, {[]servicecatalogv1.RecordStatus{succeeded}, io.EOF}}
			waiting(t, watches, func(t *testing.T, client *servicecatalog.Client, s *script) {
				last, err := client.Wait(t.Context(), "rec-1")
				if err != nil || last.GetRecordDetail().GetStatus() != succeeded || len(s.times) != 2 {
					t.Errorf("got %v, %v after %d watches", last, err, len(s.times))
				}
			})
		})
	}
}

func TestWaitReturnsWhatAnotherWatchWouldNotMend(t *testing.T) {
	for name, end := range map[string]error{
		"INVALID_REQUEST":              fail(codes.InvalidArgument, "", because("INVALID_REQUEST")),
		"RESOURCE_NOT_FOUND":           fail(codes.NotFound, "", because("RESOURCE_NOT_FOUND")),
		"RECORD_ACCESS_LOST":           fail(codes.PermissionDenied, "", because("RECORD_ACCESS_LOST")),
		"UNMAPPED_AWS_ERROR":           fail(codes.Unknown, "", because("UNMAPPED_AWS_ERROR")),
		"INTERNAL":                     fail(codes.Internal, "", because("INTERNAL")),
		"a newer reason":               fail(codes.FailedPrecondition, "", because("REASON_OF_NEXT_YEAR")),
		"a proxy's UNAUTHENTICATED":    fail(codes.Unauthenticated, ""),
		"a proxy's UNIMPLEMENTED":      fail(codes.Unimplemented, ""),
		"a proxy's RESOURCE_EXHAUSTED": fail(codes.ResourceExhausted, ""),
	} {
		t.Run(name, func(t *testing.T) {
			waiting(t, []watch{{nil, end}}, func(t *testing.T, client *servicecatalog.Client, s *script) {
				last, err := client.Wait(t.Context(), "rec-1")
				if failureOf(t, err); !errors.Is(err, end) || last != nil || len(s.times) != 1 {
					t.Errorf("got %v, %v after %d watches", last, err, len(s.times))
				}
			})
		})
	}
}

func TestPausesGrow(t *testing.T) {
	broken := watch{nil, fail(codes.Unavailable, "")}
	watches := []watch{broken, broken, broken, broken, broken, broken, broken, {[]servicecatalogv1.RecordStatus{succeeded}, io.EOF}}
	waiting(t, watches, func(t *testing.T, client *servicecatalog.Client, s *script) {
		if _, err := client.Wait(t.Context(), "rec-1"); err != nil {
			t.Fatal(err)
		}
		for i, want := range []time.Duration{200, 400, 800, 1600, 3200, 5000, 5000} {
			want *= time.Millisecond
			if got := s.pauses()[i]; got < want*8/10 || got > want*12/10 {
				t.Errorf("pause %d was %v, want about %v", i, got, want)
			}
		}
	})
}

func TestPausesBeginAnewAfterAMessage(t *testing.T) {
	broken := watch{nil, fail(codes.Unavailable, "")}
	heard := watch{[]servicecatalogv1.RecordStatus{inProgress}, fail(codes.Unavailable, "")}
	watches := []watch{broken, broken, broken, heard, broken, {[]servicecatalogv1.RecordStatus{succeeded}, io.EOF}}
	waiting(t, watches, func(t *testing.T, client *servicecatalog.Client, s *script) {
		if _, err := client.Wait(t.Context(), "rec-1"); err != nil {
			t.Fatal(err)
		}
		if pauses := s.pauses(); pauses[3] > 240*time.Millisecond || pauses[4] > 480*time.Millisecond {
			t.Errorf("got %v", pauses)
		}
	})
}

func TestPauseIsTheServers(t *testing.T) {
	busy := watch{nil, fail(codes.ResourceExhausted, "", because("OVERLOADED"), &errdetails.RetryInfo{RetryDelay: durationpb.New(7 * time.Second)})}
	waiting(t, []watch{busy, {[]servicecatalogv1.RecordStatus{succeeded}, io.EOF}}, func(t *testing.T, client *servicecatalog.Client, s *script) {
		if _, err := client.Wait(t.Context(), "rec-1"); err != nil || s.pauses()[0] != 7*time.Second {
			t.Errorf("got %v after %v", err, s.pauses())
		}
	})
}

func TestWaitEndsAtItsDeadlineInAPause(t *testing.T) {
	broken := watch{nil, fail(codes.Unavailable, "connection refused")}
	waiting(t, []watch{broken}, func(t *testing.T, client *servicecatalog.Client, s *script) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		start := time.Now()
		_, err := client.Wait(ctx, "rec-1")
		failure := failureOf(t, err)
		if failure.Code != codes.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			t.Errorf("got %+v", failure)
		}
		if !strings.Contains(err.Error(), "rec-1") || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("it does not say enough: %v", err)
		}
		if took := time.Since(start); took != 20*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestWaitIsCancelledInAPause(t *testing.T) {
	waiting(t, []watch{{nil, io.EOF}}, func(t *testing.T, client *servicecatalog.Client, s *script) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, err := client.Wait(ctx, "rec-1")
		if failure := failureOf(t, err); failure.Code != codes.Canceled || !errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
			t.Errorf("got %+v after %v", failure, time.Since(start))
		}
	})
}

func TestWaitEndsAtItsDeadlineInAWatch(t *testing.T) {
	f := &facade{answer: func(c call) error {
		works(c)
		<-c.Context().Done()
		return nil
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := connect(t, f).Wait(ctx, "rec-1")
	if failure := failureOf(t, err); failure.Code != codes.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %+v", failure)
	}
}

func TestWaitIsCancelledInAWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := &facade{answer: func(c call) error {
		works(c)
		cancel()
		<-c.Context().Done()
		return nil
	}}
	_, err := connect(t, f).Wait(ctx, "rec-1")
	if failure := failureOf(t, err); failure.Code != codes.Canceled || !errors.Is(err, context.Canceled) {
		t.Errorf("got %+v", failure)
	}
}

func TestWaitEndsWhenTheClientIsClosed(t *testing.T) {
	var client *servicecatalog.Client
	f := &facade{answer: func(c call) error {
		works(c)
		client.Close()
		<-c.Context().Done()
		return nil
	}}
	client = connect(t, f)
	_, err := client.Wait(t.Context(), "rec-1")
	if failure := failureOf(t, err); failure.Code != codes.Canceled || errors.Is(err, context.Canceled) {
		t.Errorf("got %+v", failure)
	}
}

func TestWaitSurvivesARestart(t *testing.T) {
	answer := func(state servicecatalogv1.RecordStatus, end error) *facade {
		return &facade{answer: func(c call) error {
			c.SendMsg(&servicecatalogv1.WatchRecordResponse{RecordDetail: &servicecatalogv1.RecordDetail{Status: state}})
			if end == nil && state == inProgress {
				<-c.Context().Done()
			}
			return end
		}}
	}
	listener := listen(t, "tcp", "127.0.0.1:0")
	address := listener.Addr().String()
	first := answer(inProgress, nil)
	server := grpc.NewServer(grpc.UnknownServiceHandler(first.handle))
	go server.Serve(listener)
	client, err := servicecatalog.Connect(address, servicecatalog.Plaintext())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	time.AfterFunc(100*time.Millisecond, server.Stop)
	time.AfterFunc(500*time.Millisecond, func() {
		again, err := net.Listen("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		answer(succeeded, nil).serve(t, again)
	})
	last, err := client.Wait(t.Context(), "rec-1")
	if err != nil || last.GetRecordDetail().GetStatus() != succeeded || len(first.seen()) != 1 {
		t.Errorf("got %v, %v", last, err)
	}
}
