package rest

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/swaggest/swgui/v5/static"
	"github.com/swaggest/swgui/v5emb"
)

//go:embed openapi/eligibility.swagger.json
var openAPI embed.FS

const (
	openAPIFile = "openapi/eligibility.swagger.json"
	openAPIPath = "/openapi.json"
	docsPath    = "/docs"
	docsTitle   = "eligibilityd"
)

// docsPolicy lets the documentation page load nothing from anywhere but this
// server. Its page configures itself in a script of its own, hence inline.
const docsPolicy = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; " +
	"img-src 'self' data:; font-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// docs serves the OpenAPI document and a page to browse it, both from the binary.
type docs struct {
	openAPI []byte
	tag     string
	page    http.Handler
	assets  map[string]bool // paths below docsPath that the page loads
}

func newDocs() (*docs, error) {
	document, err := openAPI.ReadFile(openAPIFile)
	if err != nil {
		return nil, fmt.Errorf("read OpenAPI document: %w", err)
	}
	assets, err := fs.ReadDir(static.FS, ".")
	if err != nil {
		return nil, fmt.Errorf("list documentation assets: %w", err)
	}
	sum := sha256.Sum256(document)
	d := &docs{
		openAPI: document,
		tag:     `"` + hex.EncodeToString(sum[:8]) + `"`,
		page:    v5emb.New(docsTitle, openAPIPath, docsPath+"/"),
		assets:  make(map[string]bool, len(assets)),
	}
	for _, asset := range assets {
		d.assets[docsPath+"/"+strings.TrimSuffix(asset.Name(), ".gz")] = true
	}
	return d, nil
}

// isPage reports whether a path is a page of the documentation.
func (d *docs) isPage(path string) bool {
	return path == "/" || path == openAPIPath || path == docsPath || path == docsPath+"/"
}

// serve answers requests for the documentation and reports whether this was one.
func (d *docs) serve(w http.ResponseWriter, req *http.Request) bool {
	path := req.URL.Path
	switch {
	case !d.isPage(path) && !d.assets[path]:
		return false
	case req.Method != http.MethodGet && req.Method != http.MethodHead:
		writeNotAllowed(w, "GET, HEAD")
	case path == "/":
		w.Header().Set("Location", docsPath)
		w.WriteHeader(http.StatusFound)
	case path == openAPIPath:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Etag", d.tag)
		http.ServeContent(w, req, openAPIFile, time.Time{}, bytes.NewReader(d.openAPI))
	default:
		w.Header().Set("Content-Security-Policy", docsPolicy)
		d.page.ServeHTTP(w, req)
	}
	return true
}
