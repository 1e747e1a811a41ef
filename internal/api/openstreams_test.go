package api

import (
	"testing"

	"google.golang.org/grpc/peer"
)

func TestOneCallerDoesNotTakeAllStreams(t *testing.T) {
	t.Parallel()
	open := &openStreams{most: 20, share: 18}
	enter := func(caller string, n int) (entered int) {
		for range n {
			if open.enter(new(peer.Peer), caller) {
				entered++
			}
		}
		return entered
	}
	if a, b := enter("a", 100), enter("b", 100); a != 18 || b != 2 {
		t.Errorf("%d and %d streams", a, b)
	}
	open.leave(nil, "a")
	if a, b := enter("b", 1), enter("a", 1); a != 1 || b != 0 {
		t.Errorf("%d and %d streams once one has ended", a, b)
	}
	open = &openStreams{most: 20, share: 18}
	if n := enter("", 100); n != 20 {
		t.Errorf("%d streams of callers without a name", n)
	}
}
