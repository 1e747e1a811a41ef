package pcsim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// jsonTree reads a JSON text into the tree that YAML gives, so that both are
// read by the same rules. It is not handed to the YAML parser, which takes
// most JSON but neither surrogate pairs nor tabs.
func jsonTree(text []byte) (*yaml.Node, error) {
	if !utf8.Valid(text) { // encoding/json would silently replace it
		return nil, errors.New("body is not UTF-8")
	}
	// Checked as a whole first: this bounds the depth, which Token does not,
	// and after it the tokens can only fit together.
	var whole json.RawMessage
	if err := json.Unmarshal(text, &whole); err != nil {
		return nil, fmt.Errorf("body is no JSON: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(whole))
	dec.UseNumber()
	return jsonNode(dec)
}

func jsonNode(dec *json.Decoder) (*yaml.Node, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	scalar := func(tag, value string) (*yaml.Node, error) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}, nil
	}
	switch v := token.(type) {
	case json.Delim:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		if v == '{' {
			n.Kind = yaml.MappingNode
		}
		for dec.More() { // names are tokens like any other
			child, err := jsonNode(dec)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, child)
		}
		_, err := dec.Token() // the closing bracket
		return n, err
	case json.Number:
		if _, err := strconv.ParseInt(v.String(), 10, 64); err != nil {
			return scalar("!!float", v.String())
		}
		return scalar("!!int", v.String())
	case string:
		return scalar("!!str", v)
	case bool:
		return scalar("!!bool", strconv.FormatBool(v))
	case nil:
		return scalar("!!null", "null")
	}
	return nil, io.ErrUnexpectedEOF // unreachable: there are no other tokens
}
