package api

import (
	"strings"
	"testing"

	"github.com/google/uuid"
)

func TestASaneRequestIDIsKept(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"a", "order-4711/retry=2", strings.Repeat("x", maxRequestIDBytes), "!~"} {
		if got := RequestIDOr(id); got != id {
			t.Errorf("request ID %q became %q", id, got)
		}
	}
	for _, id := range []string{"", " ", "a b", "a\nb", "é", "\x7f", strings.Repeat("x", maxRequestIDBytes+1)} {
		got := RequestIDOr(id)
		if _, err := uuid.Parse(got); err != nil {
			t.Errorf("request ID %q became %q, not a new one", id, got)
		}
	}
}

func TestTraceparentIsTakenIfValid(t *testing.T) {
	t.Parallel()
	const valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for header, want := range map[string]string{
		valid:            "0af7651916cd43dd8448eb211c80319c",
		"cc" + valid[2:]: "0af7651916cd43dd8448eb211c80319c",
		"cc" + valid[2:] + "-what-the-future-will-be-like": "0af7651916cd43dd8448eb211c80319c",
		"":                     "",
		"00":                   "",
		"ff" + valid[2:]:       "",
		valid + "-more":        "",
		"cc" + valid[2:] + "x": "",
		strings.ToUpper(valid): "",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": "",
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": "",
		"00-0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331-01": "",
		"0g" + valid[2:]: "",
	} {
		if got := ParseTraceparent(header).traceID(); got != want {
			t.Errorf("trace ID of %q is %q, want %q", header, got, want)
		}
	}
}
