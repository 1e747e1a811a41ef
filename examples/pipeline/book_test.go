package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func newBook(t *testing.T) (b *book, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "journal.jsonl")
	return reopen(t, path), path
}

func reopen(t *testing.T, path string) *book {
	t.Helper()
	b, err := openBook(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.journal.on.Close() })
	return b
}

// parkOrder accepts an order and parks it.
func parkOrder(t *testing.T, b *book, id, customerID, segment string) {
	t.Helper()
	o := Order{ID: id, CustomerID: customerID, Segment: segment, State: due}
	if known, err := b.accept(o); known != "" || err != nil {
		t.Fatal(known, err)
	}
	if o, err := b.park(o, time.Unix(1, 0)); o.State != parked || err != nil {
		t.Fatal(o, err)
	}
}

func watchesOf(t *testing.T, b *book) map[int]watch {
	t.Helper()
	all, err := b.watches()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Whatever part of the last line a crash leaves, the lines before it are there, and the
// journal goes on after them.
func TestACrashCostsAtMostTheLineThatItInterrupts(t *testing.T) {
	t.Parallel()
	b, path := newBook(t)
	for i := range 5 {
		parkOrder(t, b, fmt.Sprint("order-", i), "c", "")
	}
	if _, err := b.release(customer{"c", ""}, time.Unix(2, 0)); err != nil {
		t.Fatal(err)
	}
	if err := b.put(Order{ID: "order-3", State: placed}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	accepted := func(part []byte) int {
		return bytes.Count(part, []byte(`"state":"due"}`)) // as an order is accepted
	}
	for end := 0; end <= len(text); end += 7 { // in all parts of lines
		cut := filepath.Join(t.TempDir(), "journal.jsonl")
		if err := os.WriteFile(cut, text[:end], 0o600); err != nil { //nolint:gosec // of this test
			t.Fatal(err)
		}
		b := reopen(t, cut)
		whole := text[:bytes.LastIndexByte(text[:end], '\n')+1]
		if got := len(b.open) + len(b.finished); got != accepted(whole) {
			t.Fatalf("after %d bytes: %d orders, want %d", end, got, accepted(whole))
		}
		if _, err := b.accept(Order{ID: "next", State: due}); err != nil {
			t.Fatal(err)
		}
		if err := b.journal.on.Close(); err != nil {
			t.Fatal(err)
		}
		if b := reopen(t, cut); b.open["next"].State != due {
			t.Fatalf("after %d bytes: the next order is lost", end)
		}
	}
}

func TestTheShopGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "placed.jsonl")
	if err := os.WriteFile(path, []byte("{\"key\":\"first\"}\n{\"key\":\"interr"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := openShop(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"first", "interrupted"} {
			if err := s.place(key, "c"); err != nil {
				t.Fatal(err)
			}
		}
		if s.file.lines != 2 {
			t.Errorf("%d lines", s.file.lines)
		}
		if err := s.file.on.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAJournalWithADamagedLineIsNotRead(t *testing.T) {
	t.Parallel()
	b, path := newBook(t)
	parkOrder(t, b, "order", "c", "")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[0] = 'x'
	if err := os.WriteFile(path, text, 0o600); err != nil { //nolint:gosec // of this test
		t.Fatal(err)
	}
	if _, err := openBook(path); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Error(err)
	}
}

// After a write that failed, no later one succeeds: it would hide that something is
// missing before it.
func TestAFailedWriteIsFinal(t *testing.T) {
	t.Parallel()
	b, path := newBook(t)
	closed, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	good := b.journal.on
	b.journal.on = closed
	if _, err := b.accept(Order{ID: "first", State: due}); err == nil {
		t.Fatal("a file that cannot be written to was written to")
	}
	b.journal.on = good
	if err := b.advance(1, "token"); err == nil {
		t.Error("a token was stored after what it stands for was lost")
	}
	_ = closed.Close()
}

func TestTheJournalIsCompacted(t *testing.T) {
	t.Parallel()
	b, path := newBook(t)
	parkOrder(t, b, "parked", "c", "education")
	number := slices.Collect(maps.Keys(watchesOf(t, b)))[0]
	if err := b.put(Order{ID: "done", CustomerID: "d", State: placed}); err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		if err := b.advance(number, fmt.Sprint("token-", i)); err != nil {
			t.Fatal(err)
		}
	}
	if b.journal.lines > 1500 {
		t.Errorf("%d lines", b.journal.lines)
	}
	again := reopen(t, path)
	if again.open["parked"] != b.open["parked"] || again.finished["done"] != placed || again.journal.lines != 3 {
		t.Errorf("%+v, %v, %d lines", again.open, again.finished, again.journal.lines)
	}
	if w := watchesOf(t, again)[number]; w.token != "token-2999" || w.segment != "education" || len(w.ids) != 1 {
		t.Errorf("%+v", w)
	}
}

// A change that comes while an order is being checked is not lost on it.
func TestAChangeDuringACheckKeepsTheOrderDue(t *testing.T) {
	t.Parallel()
	b, _ := newBook(t)
	o := Order{ID: "order", CustomerID: "c", State: due}
	if _, err := b.accept(o); err != nil {
		t.Fatal(err)
	}
	if _, err := b.release(customer{"c", ""}, time.Unix(20, 0)); err != nil {
		t.Fatal(err)
	}
	if o, err := b.park(o, time.Unix(10, 0)); err != nil || o.State != due || !o.NotBefore.Equal(time.Unix(20, 0)) {
		t.Errorf("blocked by evidence from before the change: %+v, %v", o, err)
	}
	if o, err := b.park(o, time.Unix(20, 0)); err != nil || o.State != parked {
		t.Errorf("blocked by the evidence of the change: %+v, %v", o, err)
	}
}

func TestAnOrderThatComesAgainIsKnown(t *testing.T) {
	t.Parallel()
	b, path := newBook(t)
	parkOrder(t, b, "a", "c", "")
	if err := b.put(Order{ID: "b", State: refused}); err != nil {
		t.Fatal(err)
	}
	for _, b := range []*book{b, reopen(t, path)} {
		for id, want := range map[string]state{"a": parked, "b": refused} {
			if known, err := b.accept(Order{ID: id, State: due}); known != want || err != nil {
				t.Errorf("%s: %q, %v", id, known, err)
			}
		}
	}
}

// No stream has more than a thousand customers, each customer is in one, and a token
// stays with the customers for whom it was stored.
func TestStreams(t *testing.T) {
	t.Parallel()
	b, path := newBook(t)
	for i := range 2500 {
		b.apply(record{Order: &Order{ID: fmt.Sprint(i), CustomerID: fmt.Sprint(i), State: parked}})
	}
	parkOrder(t, b, "education", "0", "education")
	before := watchesOf(t, b)
	ids := make(map[customer]int)
	for number, w := range before {
		if len(w.ids) > maxIDs {
			t.Errorf("%d customers", len(w.ids))
		}
		for _, id := range w.ids {
			ids[customer{id, w.segment}]++
		}
		if err := b.advance(number, fmt.Sprint("token-", number)); err != nil {
			t.Fatal(err)
		}
	}
	if len(before) != 4 || len(ids) != 2501 {
		t.Errorf("%d streams for %d customers", len(before), len(ids))
	}

	parkOrder(t, b, "new", "new", "")
	parkOrder(t, b, "another", "0", "")
	after := watchesOf(t, b)
	anew := 0
	for number, w := range after {
		if _, old := before[number]; !old {
			anew++
			if w.token != "" || !slices.Contains(w.ids, "new") || len(w.ids) != 501 {
				t.Errorf("the new stream has %d customers and the token %q", len(w.ids), w.token)
			}
		} else if w.token != fmt.Sprint("token-", number) || len(w.ids) != len(before[number].ids) {
			t.Errorf("stream %d has %d customers and the token %q", number, len(w.ids), w.token)
		}
	}
	if anew != 1 || len(after) != 4 {
		t.Errorf("%d new streams of %d", anew, len(after))
	}

	// After a restart they are the same, and new ones get numbers of their own.
	again := reopen(t, path)
	for number, w := range watchesOf(t, again) {
		if w.token != after[number].token || len(w.ids) != len(after[number].ids) {
			t.Errorf("stream %d has %d customers and the token %q after a restart", number, len(w.ids), w.token)
		}
	}
	for i := range 2500 {
		again.apply(record{Order: &Order{ID: fmt.Sprint(i), State: placed}})
	}
	again.apply(record{Order: &Order{ID: "another", State: placed}})
	if left := watchesOf(t, again); len(left) != 2 {
		t.Errorf("%d streams for two customers of two segments", len(left))
	}
	parkOrder(t, again, "newest", "newest", "")
	for number, w := range watchesOf(t, again) {
		if slices.Contains(w.ids, "newest") && (w.token != "" || after[number].ids != nil) {
			t.Errorf("stream %d, which is new, has the token %q", number, w.token)
		}
	}
}
