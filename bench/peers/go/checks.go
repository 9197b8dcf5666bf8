package main

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/metadata"

	pb "github.com/servicecatalog-grpc/servicecatalog-grpc/clients/go/servicecatalog/v1"
)

// AWS's patterns for ProvisionProduct, as its model has them, to match whole values.
var (
	idPattern      = whole(`^[a-zA-Z0-9_\-]*`)
	namePattern    = whole(`[a-zA-Z0-9][a-zA-Z0-9._-]*`)
	tokenPattern   = whole(`[a-zA-Z0-9][a-zA-Z0-9_-]*`)
	tagPattern     = whole(`^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$`)
	accountPattern = whole(`^[0-9]{12}$`)
	// AWS's ends in {0,1023}; Go's regexp repeats nothing more than 1000 times.
	topicPattern = whole(`arn:[a-z0-9-\.]{1,63}:[a-z0-9-\.]{0,63}:[a-z0-9-\.]{0,63}:[a-z0-9-\.]{0,63}:[^/].{0,1000}.{0,23}`)
)

func whole(pattern string) *regexp.Regexp {
	return regexp.MustCompile(`\A(?:` + pattern + `)\z`)
}

// checks collects what breaks a rule: the field's path and what is wrong, never the value.
type checks []*errdetails.BadRequest_FieldViolation

func (c *checks) add(field, problem string) {
	*c = append(*c, &errdetails.BadRequest_FieldViolation{Field: field, Description: problem})
}

// text checks the length, in characters, and then the pattern: to match a megabyte would cost more than it says.
func (c *checks) text(field, value string, least, most int, pattern *regexp.Regexp) {
	if size := utf8.RuneCountInString(value); size < least || size > most {
		c.add(field, fmt.Sprintf("must have %d to %d characters, has %d", least, most, size))
	} else if pattern != nil && !pattern.MatchString(value) {
		c.add(field, "must match "+strings.TrimSuffix(strings.TrimPrefix(pattern.String(), `\A(?:`), `)\z`)+" as a whole")
	}
}

// required checks a text that has to be there.
func (c *checks) required(field, value string, most int, pattern *regexp.Regexp) {
	if value == "" {
		c.add(field, "is required")
	} else {
		c.text(field, value, 1, most, pattern)
	}
}

func (c *checks) number(field string, value *int32, least, most int32) {
	if value != nil && (*value < least || *value > most) {
		c.add(field, fmt.Sprintf("must be %d to %d", least, most))
	}
}

func (c *checks) entries(field string, size, most int) {
	if size > most {
		c.add(field, fmt.Sprintf("must have at most %d entries, has %d", most, size))
	}
}

// check returns everything in which the request breaks AWS's rules, those of its model and those of its prose.
func check(ctx context.Context, request *pb.ProvisionProductRequest) checks {
	var found checks
	switch request.AcceptLanguage {
	case "", "en", "jp", "zh":
	default:
		found.add("accept_language", "must be one of en, jp, zh")
	}
	switch product := request.Product.(type) {
	case *pb.ProvisionProductRequest_ProductId:
		found.text("product_id", product.ProductId, 1, 100, idPattern)
	case *pb.ProvisionProductRequest_ProductName:
		found.text("product_name", product.ProductName, 1, 8191, nil)
	default:
		found.add("product", "is required: give product_id or product_name")
	}
	switch artifact := request.ProvisioningArtifact.(type) {
	case *pb.ProvisionProductRequest_ProvisioningArtifactId:
		found.text("provisioning_artifact_id", artifact.ProvisioningArtifactId, 1, 100, idPattern)
	case *pb.ProvisionProductRequest_ProvisioningArtifactName:
		found.text("provisioning_artifact_name", artifact.ProvisioningArtifactName, 1, 8192, nil)
	default:
		found.add("provisioning_artifact", "is required: give provisioning_artifact_id or provisioning_artifact_name")
	}
	switch path := request.Path.(type) {
	case *pb.ProvisionProductRequest_PathId:
		found.text("path_id", path.PathId, 1, 100, idPattern)
	case *pb.ProvisionProductRequest_PathName:
		found.text("path_name", path.PathName, 1, 100, nil)
	}
	found.required("provisioned_product_name", request.ProvisionedProductName, 128, namePattern)
	for index, parameter := range request.ProvisioningParameters {
		field := fmt.Sprintf("provisioning_parameters[%d]", index)
		found.required(field+".key", parameter.Key, 1000, nil)
		found.text(field+".value", parameter.GetValue(), 0, 4096, nil)
	}
	if request.ProvisioningPreferences != nil {
		found.preferences(request.ProvisioningPreferences)
	}
	found.entries("tags", len(request.Tags), 50)
	for index, tag := range request.Tags {
		field := fmt.Sprintf("tags[%d]", index)
		found.required(field+".key", tag.Key, 128, tagPattern)
		found.required(field+".value", tag.Value, 256, tagPattern)
	}
	found.entries("notification_arns", len(request.NotificationArns), 5)
	for index, arn := range request.NotificationArns {
		found.text(fmt.Sprintf("notification_arns[%d]", index), arn, 1, 1224, topicPattern)
	}
	if request.ProvisionToken != "" {
		found.text("provision_token", request.ProvisionToken, 1, 128, tokenPattern)
	}
	// An empty or ambiguous key would protect nothing.
	if keys := metadata.ValueFromIncomingContext(ctx, keyHeader); len(keys) > 1 {
		found.add(keyHeader, fmt.Sprintf("must be given once in the metadata, is there %d times", len(keys)))
	} else if len(keys) == 1 && strings.TrimSpace(keys[0]) == "" {
		found.add(keyHeader, "must not be empty in the metadata")
	}
	return found
}

func (c *checks) preferences(preferences *pb.ProvisioningPreferences) {
	const path, unlimited = "provisioning_preferences.", math.MaxInt32
	for index, account := range preferences.StackSetAccounts {
		c.text(fmt.Sprintf("%sstack_set_accounts[%d]", path, index), account, 0, unlimited, accountPattern)
	}
	failures, failuresShare := preferences.StackSetFailureToleranceCount, preferences.StackSetFailureTolerancePercentage
	atATime, atATimeShare := preferences.StackSetMaxConcurrencyCount, preferences.StackSetMaxConcurrencyPercentage
	c.number(path+"stack_set_failure_tolerance_count", failures, 0, unlimited)
	c.number(path+"stack_set_failure_tolerance_percentage", failuresShare, 0, 100)
	c.number(path+"stack_set_max_concurrency_count", atATime, 1, unlimited)
	c.number(path+"stack_set_max_concurrency_percentage", atATimeShare, 1, 100)
	if failures != nil && failuresShare != nil {
		c.add(path+"stack_set_failure_tolerance_percentage", "must not be given together with stack_set_failure_tolerance_count")
	}
	if atATime != nil && atATimeShare != nil {
		c.add(path+"stack_set_max_concurrency_percentage", "must not be given together with stack_set_max_concurrency_count")
	}
	most := int64(max(preferences.GetStackSetFailureToleranceCount(), 0)) + 1
	if failuresShare == nil && int64(preferences.GetStackSetMaxConcurrencyCount()) > most {
		c.add(path+"stack_set_max_concurrency_count",
			fmt.Sprintf("must be at most one more than stack_set_failure_tolerance_count (0 if absent): at most %d", most))
	}
}
