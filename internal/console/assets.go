package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"time"
)

// assetFiles are the files that pages load.
//
//go:embed assets
var assetFiles embed.FS

// asset serves the files of pages, without a session: they are the same for everybody.
func (h *Handler) asset(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	content, err := assetFiles.ReadFile("assets/" + name)
	if err != nil {
		h.notFound(w, r)
		return
	}
	sum := sha256.Sum256(content)
	w.Header().Set("Cache-Control", "no-cache") // asked for again, by its tag
	w.Header().Set("Etag", `"`+hex.EncodeToString(sum[:8])+`"`)
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
}
