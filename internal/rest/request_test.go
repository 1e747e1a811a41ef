package rest

import (
	"testing"
	"time"
)

func TestTimeoutsAreRead(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond,
		"5u": 5 * time.Microsecond, "6n": 6, "0n": 0, "99999999S": 99999999 * time.Second, "99999999H": maxTimeoutHours * time.Hour,
	} {
		if got, ok := parseTimeout(header); !ok || got != want {
			t.Errorf("%s is %v, %v; want %v", header, got, ok, want)
		}
	}
	for _, header := range []string{"5", "S", "-1S", "1.5S", "1s", "1 S", "123456789S", "+1S", "1SS"} {
		if got, ok := parseTimeout(header); ok {
			t.Errorf("%s is %v", header, got)
		}
	}
}
