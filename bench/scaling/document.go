package main

import (
	"bytes"
	"fmt"
)

// table is a part of the document that this program writes.
type table struct{ name, text string }

// fill replaces the text between the marks of each table:
//
//	<!-- begin NAME -->
//	…
//	<!-- end NAME -->
func fill(document []byte, tables []table) ([]byte, error) {
	for _, t := range tables {
		begin, end := []byte("<!-- begin "+t.name+" -->\n"), []byte("<!-- end "+t.name+" -->")
		from, to := bytes.Index(document, begin), bytes.Index(document, end)
		if from < 0 || to < from {
			return nil, fmt.Errorf("the document has no place for the table %s", t.name)
		}
		filled := append([]byte(nil), document[:from+len(begin)]...)
		filled = append(filled, t.text...)
		document = append(filled, document[to:]...)
	}
	return document, nil
}
