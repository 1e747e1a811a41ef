// Openapi replaces the Swagger 2 description that protoc-gen-openapiv2 has written to
// a directory by one in OpenAPI 3.
//
// It marks fields as required from the descriptors of the messages: the service
// writes every field that has no presence, also if it has its default value.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi2"
	"github.com/getkin/kin-openapi/openapi2conv"
	"github.com/getkin/kin-openapi/openapi3"
	"google.golang.org/protobuf/reflect/protoreflect"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: openapi DIRECTORY")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	source := filepath.Join(dir, "eligibility.swagger.json")
	read, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("read swagger: %w", err)
	}
	// The plugin qualifies names that a nested enumeration shares with a message.
	read = []byte(strings.NewReplacer(`"v1.Reason"`, `"Reason"`, `/v1.Reason"`, `/Reason"`, `WatchEnd.Reason"`, `WatchEndReason"`).Replace(string(read)))
	var swagger openapi2.T
	if err := json.Unmarshal(read, &swagger); err != nil {
		return fmt.Errorf("read swagger: %w", err)
	}
	doc, err := openapi2conv.ToV3(&swagger)
	if err != nil {
		return fmt.Errorf("convert: %w", err)
	}
	for path, item := range swagger.Paths {
		for method, operation := range item.Operations() {
			addExamples(operation, doc.Paths.Value(path).GetOperation(method))
		}
	}
	if err := addRequired(doc.Components.Schemas); err != nil {
		return err
	}
	if err := describeReferences(read, doc.Components.Schemas); err != nil {
		return err
	}
	if err := doc.Validate(context.Background()); err != nil {
		return fmt.Errorf("validate: %w", err)
	}
	written, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, written, "", "  "); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	indented.WriteByte('\n')
	return errors.Join(os.WriteFile(filepath.Join(dir, "eligibility.openapi.json"), indented.Bytes(), 0o644), os.Remove(source))
}

// addExamples adds what the conversion leaves out: examples of responses and of
// parameters.
func addExamples(from *openapi2.Operation, to *openapi3.Operation) {
	for code, response := range from.Responses.Map() {
		target := to.Responses.Value(code).Value
		if stream := target.Content["application/x-ndjson"]; stream != nil && code != "200" { // errors are no streams
			target.Content = openapi3.Content{"application/json": stream}
		}
		if media := target.Content.Get("application/json"); media != nil && media.Schema != nil && media.Schema.Ref == "" {
			target.Content = nil // a response without a body
		} else if example := response.Examples["application/json"]; example != nil && media != nil {
			media.Example = example
		}
	}
	if to.RequestBody != nil {
		delete(to.RequestBody.Value.Extensions, "x-originalParamName")
	}
	for _, parameter := range to.Parameters {
		if example, ok := parameter.Value.Extensions["x-example"]; ok {
			parameter.Value.Example = example
			delete(parameter.Value.Extensions, "x-example")
		}
	}
}

// describeReferences keeps the descriptions of members that refer to a schema, by
// the only form that OpenAPI 3.0 has for them.
func describeReferences(swagger []byte, schemas openapi3.Schemas) error {
	var read struct {
		Definitions map[string]struct {
			Properties map[string]struct {
				Ref         string `json:"$ref"`
				Description string
			}
		}
	}
	if err := json.Unmarshal(swagger, &read); err != nil {
		return fmt.Errorf("read descriptions: %w", err)
	}
	for name, definition := range read.Definitions {
		for member, property := range definition.Properties {
			if reference := schemas[name].Value.Properties[member]; property.Ref != "" && property.Description != "" {
				described := &openapi3.Schema{Description: property.Description, AllOf: openapi3.SchemaRefs{reference}}
				schemas[name].Value.Properties[member] = openapi3.NewSchemaRef("", described)
			}
		}
	}
	return nil
}

// addRequired marks the members of responses that are always present. Members of
// requests are as the description has them.
func addRequired(schemas openapi3.Schemas) error {
	requests := make(map[protoreflect.FullName]bool)
	messages := make(map[string]protoreflect.MessageDescriptor)
	file := eligibilityv1.File_eligibility_v1_eligibility_proto
	for i := range file.Messages().Len() {
		message := file.Messages().Get(i)
		messages[string(message.Name())] = message
	}
	for i := range file.Services().Len() {
		methods := file.Services().Get(i).Methods()
		for j := range methods.Len() {
			addMessages(requests, methods.Get(j).Input())
		}
	}
	for name, schema := range schemas {
		schema.Value.Default = nil // it is the value of absent members of requests, and responses have no absent ones
		message, known := messages[name]
		switch {
		case name == "Status": // its code is never 0, and it always has an ErrorInfo
			schema.Value.Required = []string{"code", "message", "details"}
		case name == "Any":
			schema.Value.Required = []string{"@type"}
		case !known && len(schema.Value.Enum) == 0:
			return fmt.Errorf("schema %s is no message", name)
		case known && !requests[message.FullName()]:
			schema.Value.Required = alwaysPresent(message)
		}
	}
	return nil
}

// addMessages adds message and the messages of its fields.
func addMessages(to map[protoreflect.FullName]bool, message protoreflect.MessageDescriptor) {
	if to[message.FullName()] {
		return
	}
	to[message.FullName()] = true
	for i := range message.Fields().Len() {
		if below := message.Fields().Get(i).Message(); below != nil {
			addMessages(to, below)
		}
	}
}

func alwaysPresent(message protoreflect.MessageDescriptor) []string {
	var names []string
	for i := range message.Fields().Len() {
		if field := message.Fields().Get(i); !field.HasPresence() {
			names = append(names, field.JSONName())
		}
	}
	slices.Sort(names)
	return names
}
