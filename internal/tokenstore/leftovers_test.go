package tokenstore_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/eligibilityd/eligibilityd/internal/tokenstore"
)

// A killed writer leaves a temporary file with a refresh token that still works.
func TestSaveRemovesTemporaryFilesOfKilledWriters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stay := []string{
		"refresh-token",
		".refresh-token8446744073709551615", // of a writer at work
		".refresh-token20261121070500",      // by hand
		".refresh-token.old",
		"refresh-token1446744073709551615",
	}
	for _, name := range append([]string{".refresh-token1446744073709551615", ".refresh-token2446744073709551615"}, stay...) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("refresh-0"), 0o600); err != nil {
			t.Fatal(err)
		}
		age := 2 * time.Hour
		if name == stay[1] {
			age = time.Minute
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	file := tokenstore.File(filepath.Join(dir, "refresh-token"))
	if err := file.Save(t.Context(), "refresh-1"); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, entry := range entries {
		left = append(left, entry.Name())
	}
	slices.Sort(stay)
	if diff := cmp.Diff(stay, left); diff != "" {
		t.Errorf("(-want +left):\n%s", diff)
	}
}
