package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/servicecatalog"
	"github.com/aws/aws-sdk-go-v2/service/servicecatalog/types"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

const (
	tokenHeader      = "idempotency-token"
	keyHeader        = "idempotency-key"
	proxyIDHeader    = "x-request-id"
	requestIDTrailer = "x-amzn-requestid"

	defaultDeadline = 25 * time.Second
)

// provisioning is the servicer. Its other operations answer UNIMPLEMENTED.
type provisioning struct {
	pb.UnimplementedProvisioningServiceServer
	aws *servicecatalog.Client
}

// call is what is known of a call: for its access line, its span and its failure.
type call struct {
	token, tokenSource, requestID, errorCode, reason, recordID, provisionedProductID string
}

// ProvisionProduct forwards the request and tells of the call, however it ends.
func (p *provisioning) ProvisionProduct(
	ctx context.Context, request *pb.ProvisionProductRequest,
) (*pb.ProvisionProductResponse, error) {
	began := time.Now()
	call := &call{}
	response, err := p.forward(ctx, request, call)
	call.tell(ctx, err, time.Since(began))
	return response, err
}

func (p *provisioning) forward(
	ctx context.Context, request *pb.ProvisionProductRequest, call *call,
) (*pb.ProvisionProductResponse, error) {
	if violations := check(ctx, request); len(violations) > 0 {
		return nil, invalidRequest(violations, call)
	}
	call.token, call.tokenSource = chooseToken(ctx, request)
	input := toAWS(request, call.token)

	ctx, cancel := withDeadline(ctx)
	defer cancel()
	// A response that has begun is not retried by a proxy or by a gRPC client: from here on AWS may act.
	if err := grpc.SendHeader(ctx, metadata.Pairs(tokenHeader, call.token)); err != nil {
		return nil, err
	}
	output, err := p.aws.ProvisionProduct(ctx, input)
	if err != nil {
		return nil, failed(ctx, err, call)
	}
	call.requestID, _ = awsmiddleware.GetRequestIDMetadata(output.ResultMetadata)
	if output.RecordDetail == nil || aws.ToString(output.RecordDetail.RecordId) == "" {
		return nil, outcomeUnknown(call) // not AWS's answer, or not all of it
	}
	record := fromAWS(output.RecordDetail)
	call.recordID, call.provisionedProductID = record.RecordId, record.ProvisionedProductId
	if call.requestID != "" {
		if err := grpc.SetTrailer(ctx, metadata.Pairs(requestIDTrailer, call.requestID)); err != nil {
			slog.Warn("AWS's request id does not fit into metadata")
		}
	}
	return &pb.ProvisionProductResponse{RecordDetail: record}, nil
}

// withDeadline keeps back some of the caller's time, so that an answer which the deadline passed still gets there with its
// token.
func withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithTimeout(ctx, defaultDeadline)
	}
	remaining := time.Until(deadline)
	return context.WithTimeout(ctx, remaining-min(remaining/10, 100*time.Millisecond+remaining/50))
}

// chooseToken returns the token in force and where it is from: the request, the caller's key, the proxy's request id
// together with the request, or chance. For a key it is what the façade makes of it for a caller without identity.
func chooseToken(ctx context.Context, request *pb.ProvisionProductRequest) (token, source string) {
	const identity, method = "", pb.ProvisioningService_ProvisionProduct_FullMethodName
	if request.ProvisionToken != "" {
		return request.ProvisionToken, "request"
	}
	if keys := metadata.ValueFromIncomingContext(ctx, keyHeader); len(keys) > 0 { // then it is one: see check
		return "key-" + digest(identity, method, strings.TrimSpace(keys[0])), "idempotency-key"
	}
	if id := strings.TrimSpace(strings.Join(metadata.ValueFromIncomingContext(ctx, proxyIDHeader), ",")); id != "" {
		if content, err := (proto.MarshalOptions{Deterministic: true}).Marshal(request); err == nil {
			return "rid-" + digest(identity, method, id, string(content)), "request-id"
		}
	}
	return "rnd-" + rand.Text(), "random"
}

// digest takes each part with its length, so that no two lists look alike.
func digest(parts ...string) string {
	hash := sha256.New()
	for _, part := range parts {
		hash.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		hash.Write([]byte(part))
	}
	return hex.EncodeToString(hash.Sum(nil))
}

func toAWS(request *pb.ProvisionProductRequest, token string) *servicecatalog.ProvisionProductInput {
	input := &servicecatalog.ProvisionProductInput{
		AcceptLanguage:         given(request.AcceptLanguage),
		ProvisionedProductName: given(request.ProvisionedProductName),
		NotificationArns:       request.NotificationArns,
		ProvisionToken:         &token,
		// The members of a oneof are never empty where they are given: check sees to it.
		ProductId:                given(request.GetProductId()),
		ProductName:              given(request.GetProductName()),
		ProvisioningArtifactId:   given(request.GetProvisioningArtifactId()),
		ProvisioningArtifactName: given(request.GetProvisioningArtifactName()),
		PathId:                   given(request.GetPathId()),
		PathName:                 given(request.GetPathName()),
	}
	for _, parameter := range request.ProvisioningParameters {
		input.ProvisioningParameters = append(input.ProvisioningParameters,
			types.ProvisioningParameter{Key: &parameter.Key, Value: parameter.Value})
	}
	for _, tag := range request.Tags {
		input.Tags = append(input.Tags, types.Tag{Key: &tag.Key, Value: &tag.Value})
	}
	if preferences := request.ProvisioningPreferences; preferences != nil {
		input.ProvisioningPreferences = &types.ProvisioningPreferences{
			StackSetAccounts:                   preferences.StackSetAccounts,
			StackSetRegions:                    preferences.StackSetRegions,
			StackSetFailureToleranceCount:      preferences.StackSetFailureToleranceCount,
			StackSetFailureTolerancePercentage: preferences.StackSetFailureTolerancePercentage,
			StackSetMaxConcurrencyCount:        preferences.StackSetMaxConcurrencyCount,
			StackSetMaxConcurrencyPercentage:   preferences.StackSetMaxConcurrencyPercentage,
		}
	}
	return input
}

// given returns nil for what is empty: AWS is not sent it.
func given(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func fromAWS(detail *types.RecordDetail) *pb.RecordDetail {
	record := &pb.RecordDetail{
		RecordId:               aws.ToString(detail.RecordId),
		ProvisionedProductName: aws.ToString(detail.ProvisionedProductName),
		Status:                 recordStatus(detail.Status),
		CreatedTime:            timestamp(detail.CreatedTime),
		UpdatedTime:            timestamp(detail.UpdatedTime),
		ProvisionedProductType: aws.ToString(detail.ProvisionedProductType),
		RecordType:             aws.ToString(detail.RecordType),
		ProvisionedProductId:   aws.ToString(detail.ProvisionedProductId),
		ProductId:              aws.ToString(detail.ProductId),
		ProvisioningArtifactId: aws.ToString(detail.ProvisioningArtifactId),
		PathId:                 aws.ToString(detail.PathId),
		LaunchRoleArn:          aws.ToString(detail.LaunchRoleArn),
	}
	for _, each := range detail.RecordErrors {
		record.RecordErrors = append(record.RecordErrors,
			&pb.RecordError{Code: aws.ToString(each.Code), Description: aws.ToString(each.Description)})
	}
	for _, tag := range detail.RecordTags {
		record.RecordTags = append(record.RecordTags, &pb.RecordTag{Key: aws.ToString(tag.Key), Value: aws.ToString(tag.Value)})
	}
	return record
}

func recordStatus(raw types.RecordStatus) pb.RecordStatus {
	number, ok := pb.RecordStatus_value["RECORD_STATUS_"+string(raw)]
	if !ok && raw != "" {
		slog.Warn("AWS sent a status that the contract does not know", "status", raw)
	}
	return pb.RecordStatus(number)
}

func timestamp(moment *time.Time) *timestamppb.Timestamp {
	if moment == nil {
		return nil
	}
	return timestamppb.New(*moment)
}

// tell writes the access line, and onto the call's span what the façade puts there.
func (c *call) tell(ctx context.Context, err error, duration time.Duration) {
	line := []slog.Attr{
		slog.String("method", pb.ProvisioningService_ProvisionProduct_FullMethodName[1:]),
		slog.String("status", code.Code(status.Code(err)).String()),
		slog.Float64("duration_ms", float64(duration.Microseconds())/1000),
	}
	if from, ok := peer.FromContext(ctx); ok {
		line = append(line, slog.String("peer", from.Addr.String()))
	}
	var tokenDigest string
	if c.token != "" { // never the token itself, with which anybody could repeat the call
		sum := sha256.Sum256([]byte(c.token))
		tokenDigest = hex.EncodeToString(sum[:8])
	}
	span := trace.SpanFromContext(ctx)
	for _, each := range []struct{ field, attribute, value string }{
		{"reason", "servicecatalog.error.reason", c.reason},
		{"aws_request_id", "aws.request_id", c.requestID},
		{"record_id", "servicecatalog.record.id", c.recordID},
		{"provisioned_product_id", "servicecatalog.provisioned_product.id", c.provisionedProductID},
		{"token_digest", "servicecatalog.token.digest", tokenDigest},
		{"token_source", "servicecatalog.token.source", c.tokenSource},
	} {
		if each.value != "" {
			line = append(line, slog.String(each.field, each.value))
			span.SetAttributes(attribute.String(each.attribute, each.value))
		}
	}
	if where := span.SpanContext(); where.IsValid() {
		line = append(line, slog.String("trace_id", where.TraceID().String()), slog.String("span_id", where.SpanID().String()))
	}
	slog.LogAttrs(ctx, slog.LevelInfo, "call", line...)
}
