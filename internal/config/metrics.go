package config

import "time"

// Metrics configures how metrics leave the process, beside /metrics.
type Metrics struct {
	// OTLP is the export to an OpenTelemetry collector.
	OTLP OTLP `yaml:"otlp"`
}

// OTLP configures the export of metrics to a collector.
type OTLP struct {
	// Endpoint is the collector's, for OTLP over gRPC: an absolute URL without
	// user, path, query or fragment, such as http://127.0.0.1:4317; http is
	// accepted only if the host is loopback or insecure is set. If it is empty,
	// metrics are not exported. Optional; "".
	Endpoint string `yaml:"endpoint"`
	// Insecure permits http to any host. Set it only if the network to the
	// collector is protected otherwise. Optional; false.
	Insecure bool `yaml:"insecure"`
	// Interval is the time between two exports; 1s to 1h. Optional; 60s.
	Interval time.Duration `yaml:"interval"`
	// Headers are sent to the collector with every export, in the form of
	// tracing.headers. Conflicts with headers_file. Optional; none.
	Headers Secret `yaml:"headers"`
	// HeadersFile is a file that holds the headers and nothing else, but for
	// one newline at its end; read once, at start. Conflicts with headers.
	HeadersFile string `yaml:"headers_file"`
}

// HeaderValues returns the checked Headers by name, or nil if there are none.
func (o OTLP) HeaderValues() map[string]string {
	values, _ := parseHeaders(o.Headers.Reveal())
	return values
}

func defaultMetrics() Metrics { return Metrics{OTLP: OTLP{Interval: time.Minute}} }

func (l *loader) checkMetrics() {
	o := &l.cfg.Metrics.OTLP
	l.checkCollector("metrics.otlp.", &o.Endpoint, o.Insecure, o.Headers)
	if o.Interval < time.Second || o.Interval > time.Hour {
		l.object("metrics.otlp.interval", "%v must be from 1s to 1h", o.Interval)
	}
}
