package rest

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"sync"
)

// docsFiles are the OpenAPI document, the page that shows it, and the files of
// Swagger UI, which scripts/swagger-ui.sh replaces.
//
//go:embed openapi/eligibility.openapi.json docs.html docs.js swaggerui
var docsFiles embed.FS

const (
	openAPIFile = "openapi/eligibility.openapi.json"
	openAPIPath = "/openapi.json"
	docsPath    = "/docs"
)

// docsPolicy lets the documentation page load nothing from anywhere but this
// server, and run no script but its files. Swagger UI sets styles inline.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; " +
	"img-src 'self' data:; font-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// docs serves the OpenAPI document and a page to browse it, both from the binary.
type docs struct {
	files map[string]docsFile // by path
}

// docsFile is one of docsFiles. Its tag changes with its content, and stands for its
// compressed form too.
type docsFile struct {
	name string
	tag  func() string // reads all of the file: 2 MB for Swagger UI, which few processes are asked for
}

func newDocs() (*docs, error) {
	d := &docs{files: make(map[string]docsFile)}
	add := func(at, name string) error {
		if _, err := fs.Stat(docsFiles, name); err != nil {
			return fmt.Errorf("find documentation: %w", err)
		}
		d.files[at] = docsFile{name: name, tag: sync.OnceValue(func() string {
			content, _ := docsFiles.ReadFile(name)
			sum := sha256.Sum256(content)
			return `W/"` + hex.EncodeToString(sum[:8]) + `"`
		})}
		return nil
	}
	assets, err := fs.Glob(docsFiles, "swaggerui/*.*")
	if err != nil {
		return nil, fmt.Errorf("list documentation: %w", err)
	}
	for _, asset := range append(assets, "docs.js") {
		if err := add(docsPath+"/"+path.Base(asset), asset); err != nil {
			return nil, err
		}
	}
	if err := add(openAPIPath, openAPIFile); err != nil {
		return nil, err
	}
	return d, add(docsPath, "docs.html")
}

// isPage reports whether a path is a page of the documentation.
func (d *docs) isPage(path string) bool {
	return path == "/" || path == openAPIPath || path == docsPath || path == docsPath+"/"
}

// has reports whether a path is one of the documentation.
func (d *docs) has(path string) bool {
	_, found := d.files[path]
	return found || d.isPage(path)
}

// serve answers a request for a path of the documentation.
func (d *docs) serve(w http.ResponseWriter, req *http.Request) {
	at := req.URL.Path
	if at == docsPath+"/" {
		at = docsPath
	}
	file := d.files[at]
	switch {
	case req.Method != http.MethodGet && req.Method != http.MethodHead:
		writeNotAllowed(w, "GET, HEAD")
	case at == "/":
		w.Header().Set("Location", docsPath)
		w.WriteHeader(http.StatusFound)
	default:
		w.Header().Set("Content-Security-Policy", docsPolicy)
		w.Header().Set("Cache-Control", "no-cache")
		w.Header().Set("Etag", file.tag())
		http.ServeFileFS(w, req, docsFiles, file.name)
	}
}
