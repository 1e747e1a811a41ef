package rest

import (
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// fieldOf returns the field that a query parameter names; nil if there is none.
func fieldOf(fields protoreflect.FieldDescriptors, name string) protoreflect.FieldDescriptor { //nolint:ireturn // protobuf has no other type
	if field := fields.ByTextName(name); field != nil {
		return field
	}
	return fields.ByJSONName(name)
}

// resumeToken is the field that Last-Event-ID sets.
const resumeToken = "resume_token"

// rewriteQuery makes the query of a request one that the gateway reads: values of
// enumerations may be short words in any case, lists separated by commas, and a browser
// that reconnects sends the token in Last-Event-ID. The gateway refuses a query that is
// malformed.
func rewriteQuery(req *http.Request, inbound *request, fields protoreflect.FieldDescriptors) {
	query, err := url.ParseQuery(req.URL.RawQuery)
	if err != nil {
		return
	}
	for name, values := range query {
		switch field := fieldOf(fields, name); {
		case field == nil:
		case field.Enum() != nil:
			for i := range values {
				values[i] = enumWord(field.Enum(), values[i])
			}
		case field.IsList() && field.Kind() == protoreflect.StringKind:
			var items []string
			for _, value := range values {
				items = append(items, strings.Split(value, ",")...)
			}
			query[name] = items
		}
	}
	if last := req.Header.Get("Last-Event-Id"); last != "" {
		if field := fields.ByName(resumeToken); field != nil {
			query.Del(field.JSONName())
			query.Set(resumeToken, last)
		}
	}
	rewritten := *req.URL
	rewritten.RawQuery = query.Encode()
	req.URL, inbound.query = &rewritten, query
}

// enumWord returns the name of a value of which a request has the short form, in any
// case, and anything else as it is.
func enumWord(enum protoreflect.EnumDescriptor, word string) string {
	name := strings.ToUpper(strings.TrimSpace(word))
	unspecified := string(enum.Values().Get(0).Name())
	prefix := strings.TrimSuffix(unspecified, "UNSPECIFIED")
	for _, whole := range []string{name, prefix + name} {
		if enum.Values().ByName(protoreflect.Name(whole)) != nil {
			return whole
		}
	}
	return word
}
