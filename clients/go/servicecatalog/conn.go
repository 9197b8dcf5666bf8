package servicecatalog

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	servicecatalogv1 "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

// conn is what the stubs call. It is no interceptor, because the caller may bring one that repeats calls, and whatever
// repeats a call must repeat its token: conn is outside of all of them.
type conn struct {
	*grpc.ClientConn
	deadline time.Duration
}

func (c conn) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.deadline)
		defer cancel()
	}
	request, token := withToken(ctx, request)
	var header metadata.MD
	err := c.ClientConn.Invoke(ctx, method, request, reply, append(slices.Clip(options), grpc.Header(&header))...)
	if err == nil {
		return nil
	}
	failure := newError(ctx, err)
	if failure.Token == "" {
		failure.Token = token
		if inForce := header.Get(tokenHeader); len(inForce) > 0 {
			failure.Token = inForce[0]
		}
	}
	return failure
}

func (c conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, options ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.ClientConn.NewStream(ctx, desc, method, options...)
	if err != nil {
		return nil, newError(ctx, err)
	}
	return stream{s, ctx}, nil
}

// stream is a stream whose errors are of type *Error.
type stream struct {
	grpc.ClientStream
	ctx context.Context
}

func (s stream) Header() (metadata.MD, error) {
	header, err := s.ClientStream.Header()
	return header, s.failure(err)
}

func (s stream) SendMsg(message any) error {
	return s.failure(s.ClientStream.SendMsg(message))
}

func (s stream) RecvMsg(message any) error {
	return s.failure(s.ClientStream.RecvMsg(message))
}

func (s stream) failure(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	return newError(s.ctx, err)
}

// withToken returns the request to send, and its idempotency token: "" for a read, and where the façade derives the token
// from the metadata. A request that gets a token is a copy.
func withToken(ctx context.Context, request any) (any, string) {
	field := tokenField(request)
	if field == nil {
		return request, ""
	}
	if *field == "" {
		outgoing, _ := metadata.FromOutgoingContext(ctx)
		// The façade would prefer a token in the request to the caller's key.
		if len(outgoing.Get("idempotency-key")) > 0 || len(outgoing.Get("x-request-id")) > 0 {
			return request, ""
		}
		request = proto.Clone(request.(proto.Message))
		field = tokenField(request)
		*field = newToken()
	}
	return request, *field
}

// tokenField returns where a write has its idempotency token, and nil for a read.
func tokenField(request any) *string {
	if message, ok := request.(proto.Message); !ok || !message.ProtoReflect().IsValid() {
		return nil
	}
	switch r := request.(type) {
	case *servicecatalogv1.ProvisionProductRequest:
		return &r.ProvisionToken
	case *servicecatalogv1.UpdateProvisionedProductRequest:
		return &r.UpdateToken
	case *servicecatalogv1.UpdateProvisionedProductPropertiesRequest:
		return &r.IdempotencyToken
	case *servicecatalogv1.TerminateProvisionedProductRequest:
		return &r.TerminateToken
	}
	return nil
}

// newToken returns a random UUID, see https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-4
func newToken() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
