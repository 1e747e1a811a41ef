package config

import (
	"net/url"
	"strings"
)

// Tracing configures the export and sampling of OpenTelemetry spans.
type Tracing struct {
	// Endpoint is the collector's, for OTLP over gRPC: an absolute URL without
	// user, path, query or fragment, such as http://127.0.0.1:4317; http is
	// accepted only if the host is loopback or insecure is set. If it is empty,
	// tracing is off. Optional; "".
	Endpoint string `yaml:"endpoint"`
	// Insecure permits http to any host. Set it only if the network to the
	// collector is protected otherwise. Optional; false.
	Insecure bool `yaml:"insecure"`
	// SampleRatio is the share, 0 to 1, of requests that are traced if the
	// caller has not decided; if it has, by a traceparent, its decision holds.
	// Optional; 0.01.
	SampleRatio float64 `yaml:"sample_ratio"`
	// Headers are sent to the collector with every batch of spans, in the form
	// of OTEL_EXPORTER_OTLP_HEADERS: name=value pairs separated by commas,
	// values percent-encoded. Conflicts with headers_file. Optional; none.
	Headers Secret `yaml:"headers"`
	// HeadersFile is a file that holds the headers and nothing else, but for
	// one newline at its end; read once, at start. Conflicts with headers.
	HeadersFile string `yaml:"headers_file"`
}

// HeaderValues returns the checked Headers by name, or nil if there are none.
func (t Tracing) HeaderValues() map[string]string {
	values, _ := parseHeaders(t.Headers.Reveal())
	return values
}

// parseHeaders parses name=value pairs; ok is false if one is malformed or
// could not be sent.
func parseHeaders(text string) (values map[string]string, ok bool) {
	if strings.TrimSpace(text) == "" {
		return nil, true
	}
	values = make(map[string]string)
	for pair := range strings.SplitSeq(text, ",") {
		name, value, found := strings.Cut(strings.TrimSpace(pair), "=")
		name = strings.ToLower(strings.TrimSpace(name))
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !found || err != nil || !isHeaderName(name) || !isHeaderValue(value) {
			return nil, false
		}
		values[name] = value
	}
	return values, true
}

// isHeaderName reports whether gRPC sends a header of that lower-case name
// unchanged: it is neither reserved nor encoded.
func isHeaderName(name string) bool {
	return name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == "" &&
		!strings.HasPrefix(name, "grpc-") && !strings.HasSuffix(name, "-bin")
}

func isHeaderValue(value string) bool {
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return false
		}
	}
	return value != ""
}

func (l *loader) checkTracing() {
	t := &l.cfg.Tracing
	l.checkCollector("tracing.", &t.Endpoint, t.Insecure, t.Headers)
	if !(t.SampleRatio >= 0 && t.SampleRatio <= 1) { // also rejects NaN
		l.object("tracing.sample_ratio", "%v must be from 0 to 1", t.SampleRatio)
	}
}

// checkCollector checks the keys of a collector, which begin with section. It never
// shows the endpoint or headers, because both may hold credentials.
func (l *loader) checkCollector(section string, endpoint *string, insecure bool, headers Secret) {
	if *endpoint != "" {
		l.checkCollectorEndpoint(section, endpoint, insecure)
	}
	if _, ok := parseHeaders(headers.Reveal()); !ok {
		l.object(section+"headers", "must be name=value pairs separated by commas, values percent-encoded")
	}
}

func (l *loader) checkCollectorEndpoint(section string, endpoint *string, insecure bool) {
	checked := *endpoint
	if rest, plain := strings.CutPrefix(checked, "http://"); plain && insecure {
		checked = "https://" + rest // as if encrypted, so any host passes
	}
	parsed, problem := splitURL(checked, "http", "https")
	switch {
	case problem != "" && strings.HasPrefix(*endpoint, "http://") && !insecure:
		l.object(section+"endpoint", "%s; or set %sinsecure: true if the network to the collector is protected", problem, section)
	case problem != "":
		l.object(section+"endpoint", "%s", problem)
	case parsed.Path != "":
		l.object(section+"endpoint", "must not have a path: OTLP goes over gRPC, usually to port 4317")
	default:
		*endpoint = strings.TrimRight(*endpoint, "/")
	}
}
