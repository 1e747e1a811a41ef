package cache

import (
	"strings"
	"testing"
	"time"
)

const wellFormed = "+OK\r\n-ERR no\r\n:-5\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n$0\r\n\r\n*0\r\n*2\r\n*1\r\n:1\r\n$1\r\nx\r\n" +
	"%1\r\n$1\r\nk\r\n*0\r\n~1\r\n#t\r\n,1.5\r\n_\r\n(12345678901234567890\r\n=5\r\ntxt:x\r\n"

const messages = "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n>3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\n\r\n\r\n\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n" +
	"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n*4\r\n$8\r\npmessage\r\n$1\r\np\r\n$1\r\nc\r\n$1\r\nx\r\n+PONG\r\n-ERR no\r\n"

// accepted feeds a stream in pieces.
func accepted(stream string, piece int, subscribed bool) bool {
	var checker replyChecker
	for stream != "" {
		n := min(piece, len(stream))
		if !checker.accepts([]byte(stream[:n]), subscribed) {
			return false
		}
		stream = stream[n:]
	}
	return true
}

func TestGuardAcceptsReplies(t *testing.T) {
	t.Parallel()
	for piece := 1; piece < 40; piece++ {
		if !accepted(wellFormed, piece, false) {
			t.Errorf("replies in pieces of %d are rejected", piece)
		}
		if !accepted(messages, piece, true) {
			t.Errorf("messages in pieces of %d are rejected", piece)
		}
	}
}

func TestGuardRejectsWhatIsNoReply(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{
		"\r\n", "OK\r\n", "+OK\n", "$5000000000\r\n", "$-2\r\n", "$x\r\n", "$+1\r\n", "$\r\n", "*-2\r\n", "*70000\r\n", "%-1\r\n", "%40000000\r\n",
		"|1\r\n", "$?\r\n", strings.Repeat("*1\r\n", 9), "+" + strings.Repeat("x", maxReplyLine+1),
	} {
		for _, piece := range []int{1, 7, 1 << 20} {
			if accepted(wellFormed+stream, piece, false) {
				t.Errorf("%.20q in pieces of %d is accepted", stream, piece)
			}
		}
	}
	for _, message := range []string{
		":1\r\n", "*0\r\n", "*-1\r\n", "$1\r\nx\r\n", "*1\r\n:5\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n$1\r\nx\r\n",
		"*3\r\n$7\r\nmessage\r\n$-1\r\n$1\r\nx\r\n", "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*1\r\n:1\r\n", "*2\r\n$7\r\nmessage\r\n$1\r\nc\r\n",
		"*4\r\n$8\r\npmessage\r\n$1\r\nc\r\n$1\r\nx\r\n:1\r\n", "*1\r\n$4\r\npong\r\n", "*3\r\n*1\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n",
	} {
		if accepted(messages+message, 5, true) {
			t.Errorf("%q is accepted as a message", message)
		}
	}
}

// A reply costs what it has bytes, however they are nested or cut.
func FuzzGuard(f *testing.F) {
	f.Add([]byte(wellFormed), 3, false)
	f.Add([]byte(messages), 5, true)
	f.Add([]byte(strings.Repeat("*65536\r\n", 8)), 100, false)
	f.Fuzz(func(t *testing.T, stream []byte, piece int, subscribed bool) {
		if piece <= 0 {
			return
		}
		began := time.Now()
		whole := accepted(string(stream), len(stream)+1, subscribed)
		if accepted(string(stream), piece, subscribed) != whole {
			t.Errorf("%q is accepted whole: %t, and not in pieces of %d", stream, whole, piece)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("%d bytes took %v", len(stream), took)
		}
	})
}
