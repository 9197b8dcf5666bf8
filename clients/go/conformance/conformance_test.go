// Package conformance runs the conformance table of all clients, tests/conformance, through this one.
package conformance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog"
	servicecatalogv1 "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

const (
	root         = "../../.."
	startSeconds = 60
)

// task is what the harness wants to be done for a row.
type task struct {
	Address  string
	Method   string // such as servicecatalog.v1.RecordService/WatchRecord
	Request  json.RawMessage
	Metadata map[string]string
	Deadline *float64 // in seconds
	Repeat   bool
	Wait     bool
}

// outcome is what came of it, as the client shows it.
type outcome struct {
	Code       string          `json:"code"`
	Response   json.RawMessage `json:"response,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	Message    string          `json:"message,omitempty"`
	Violations []violation     `json:"violations,omitempty"`
	RetryDelay float64         `json:"retryDelay,omitempty"` // in seconds
	Token      string          `json:"token,omitempty"`
	Repeated   *outcome        `json:"repeated,omitempty"`
}

type violation struct {
	Field       string `json:"field"`
	Description string `json:"description"`
}

func TestConformance(t *testing.T) {
	harness := start(t)
	var rows []string
	harness.exchange(t, http.MethodGet, "/rows", nil, &rows)
	for _, row := range rows {
		t.Run(row, func(t *testing.T) {
			var do task
			harness.exchange(t, http.MethodPost, "/rows/"+url.PathEscape(row)+"/begin", nil, &do)
			var verdict struct{ Problems []string }
			harness.exchange(t, http.MethodPost, "/rows/"+url.PathEscape(row)+"/end", run(t, do), &verdict)
			for _, problem := range verdict.Problems {
				t.Error(problem)
			}
		})
	}
}

// run does the task with a client of its own.
func run(t *testing.T, do task) *outcome {
	client, err := servicecatalog.Connect(do.Address, servicecatalog.Plaintext())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	method, request := find(t, client, do)
	call := func() (proto.Message, error) {
		ctx := metadata.NewOutgoingContext(t.Context(), metadata.New(do.Metadata))
		if do.Deadline != nil {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, time.Duration(*do.Deadline*float64(time.Second)))
			defer cancel()
		}
		if do.Wait {
			return client.Wait(ctx, request.(*servicecatalogv1.WatchRecordRequest).GetId())
		}
		results := method.Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(request)})
		err, _ := results[1].Interface().(error)
		return results[0].Interface().(proto.Message), err
	}
	response, err := call()
	first := report(t, response, err)
	if do.Repeat && err != nil {
		setToken(t, request, first.Token)
		response, err = call()
		first.Repeated = report(t, response, err)
	}
	return first
}

// find returns the method of a stub, and the request for it.
func find(t *testing.T, client *servicecatalog.Client, do task) (reflect.Value, proto.Message) {
	service, name, _ := strings.Cut(strings.TrimPrefix(do.Method, "servicecatalog.v1."), "/")
	stub, ok := map[string]any{
		"ProvisioningService":       client.Provisioning,
		"RecordService":             client.Records,
		"CatalogService":            client.Catalog,
		"ProvisionedProductService": client.ProvisionedProducts,
	}[service]
	if !ok {
		t.Fatalf("the client has no %s", service)
	}
	method := reflect.ValueOf(stub).MethodByName(name)
	if !method.IsValid() {
		t.Fatalf("%s has no %s", service, name)
	}
	request := reflect.New(method.Type().In(1).Elem()).Interface().(proto.Message)
	if err := protojson.Unmarshal(do.Request, request); err != nil {
		t.Fatal(err)
	}
	return method, request
}

func setToken(t *testing.T, request proto.Message, token string) {
	switch r := request.(type) {
	case *servicecatalogv1.ProvisionProductRequest:
		r.ProvisionToken = token
	case *servicecatalogv1.UpdateProvisionedProductRequest:
		r.UpdateToken = token
	case *servicecatalogv1.UpdateProvisionedProductPropertiesRequest:
		r.IdempotencyToken = token
	case *servicecatalogv1.TerminateProvisionedProductRequest:
		r.TerminateToken = token
	default:
		t.Fatalf("a %T has no token to repeat with", request)
	}
}

func report(t *testing.T, response proto.Message, err error) *outcome {
	if err == nil {
		content, err := protojson.Marshal(response)
		if err != nil {
			t.Fatal(err)
		}
		return &outcome{Code: "OK", Response: content}
	}
	var failure *servicecatalog.Error
	if !errors.As(err, &failure) {
		t.Fatalf("%T is no *Error: %v", err, err)
	}
	o := &outcome{
		Code:       codeNames[failure.Code],
		Reason:     strings.TrimPrefix(failure.Reason.String(), "ERROR_REASON_"),
		Message:    failure.Message,
		RetryDelay: failure.RetryDelay.Seconds(),
		Token:      failure.Token,
	}
	for _, v := range failure.Violations {
		o.Violations = append(o.Violations, violation{v.Field, v.Description})
	}
	return o
}

// gRPC's own names of the codes, for which Go has others.
var codeNames = map[codes.Code]string{
	codes.Canceled:           "CANCELLED",
	codes.Unknown:            "UNKNOWN",
	codes.InvalidArgument:    "INVALID_ARGUMENT",
	codes.DeadlineExceeded:   "DEADLINE_EXCEEDED",
	codes.NotFound:           "NOT_FOUND",
	codes.AlreadyExists:      "ALREADY_EXISTS",
	codes.PermissionDenied:   "PERMISSION_DENIED",
	codes.ResourceExhausted:  "RESOURCE_EXHAUSTED",
	codes.FailedPrecondition: "FAILED_PRECONDITION",
	codes.Aborted:            "ABORTED",
	codes.OutOfRange:         "OUT_OF_RANGE",
	codes.Unimplemented:      "UNIMPLEMENTED",
	codes.Internal:           "INTERNAL",
	codes.Unavailable:        "UNAVAILABLE",
	codes.DataLoss:           "DATA_LOSS",
	codes.Unauthenticated:    "UNAUTHENTICATED",
}

// harness is where tests/conformance_server.py answers.
type harness struct{ url string }

// start runs the harness until the test ends.
func start(t *testing.T) harness {
	script := filepath.Join(root, "tests", "conformance_server.py")
	if _, err := os.Stat(script); err != nil {
		t.Skip("the table is only in the repository: ", err)
	}
	python := os.Getenv("SERVICECATALOG_PYTHON")
	if python == "" {
		python = filepath.Join(root, ".venv", "bin", "python")
	}
	if _, err := exec.LookPath(python); err != nil {
		t.Fatal("run `make install` first: ", err)
	}
	command := exec.Command(python, script, "go")
	command.Stderr = os.Stderr
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		if err := command.Wait(); err != nil {
			t.Error("the harness: ", err)
		}
	})
	late := time.AfterFunc(startSeconds*time.Second, func() { command.Process.Kill() })
	defer late.Stop()
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatal("the harness did not start: ", err)
	}
	var ready struct{ URL string }
	if err := json.Unmarshal(line, &ready); err != nil {
		t.Fatal(err)
	}
	return harness{ready.URL}
}

// exchange sends the body, if there is one, and reads the answer.
func (h harness) exchange(t *testing.T, method, path string, body, answer any) {
	t.Helper()
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	request, err := http.NewRequestWithContext(t.Context(), method, h.url+path, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		var refusal struct{ Error string }
		json.NewDecoder(response.Body).Decode(&refusal)
		t.Fatalf("the harness answered %s: %s", response.Status, refusal.Error)
	}
	if err := json.NewDecoder(response.Body).Decode(answer); err != nil {
		t.Fatal(err)
	}
}
