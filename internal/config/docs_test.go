package config_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/referencetest"
)

// deployed returns the text of a file that operators get.
func deployed(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheExampleLoadsAndStatesTheDefaults(t *testing.T) {
	t.Parallel()
	secret, token := write(t, "secret", canary+"\n"), write(t, "token", canary+"\n")
	const id = "10000000-0000-4000-8000-000000000001"
	cfg, err := config.Load(filepath.Join("..", "..", "deploy", "config.example.yaml"), []string{
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_SECRET_FILE=" + secret,
		"ELIGIBILITY_PARTNER_CENTER__REFRESH_TOKEN_FILE=" + token,
		"ELIGIBILITY_PARTNER_CENTER__TENANT_ID=" + id,
		"ELIGIBILITY_PARTNER_CENTER__CLIENT_ID=" + id,
	}, config.Serve)
	if err != nil {
		t.Fatal(err)
	}
	want := config.Default()
	want.Partners[0].TenantID = id
	want.Partners[0].ClientID = id
	want.Partners[0].ClientSecret = config.NewSecret(canary)
	want.Partners[0].ClientSecretFile = secret
	want.Partners[0].RefreshTokenFile = token
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Errorf("differs from the default (-want +got):\n%s", diff)
	}
}

// exampleSwitchedOn returns the example with the keys that are off.
func exampleSwitchedOn(t *testing.T) string {
	t.Helper()
	return regexp.MustCompile(`(?m)^( *)#((?:- \{?)?[A-Za-z_.]+:)`).ReplaceAllString(deployed(t, "config.example.yaml"), "$1$2")
}

// TestTheExampleOfAccessLoads switches on the keys that are off in the sections
// about callers.
func TestTheExampleOfAccessLoads(t *testing.T) {
	t.Parallel()
	text := exampleSwitchedOn(t)
	text = text[strings.Index(text, "\nserver:"):strings.Index(text, "\npartner_center:")]
	text = strings.ReplaceAll(text, "127.0.0.1:9090", "0.0.0.0:9090")
	cfg, err := config.Load(write(t, "config.yaml", text), nil, config.Doctor)
	if err != nil {
		t.Fatal(err)
	}
	auth := cfg.Auth
	if len(auth.Certificates) == 0 || auth.TokensFile == "" || len(auth.JWT) == 0 || len(auth.JWT[0].Rights) == 0 || len(auth.JWT[0].Require) == 0 ||
		len(auth.Callers) == 0 || len(cfg.Limits.Callers) == 0 || cfg.Server.Probe.Address == "" {
		t.Errorf("%+v", cfg)
	}
}

// TestTheExampleHoldsEveryKey switches on the keys that are off, too.
func TestTheExampleHoldsEveryKey(t *testing.T) {
	t.Parallel()
	var root map[string]any
	if err := yaml.Unmarshal([]byte(exampleSwitchedOn(t)), &root); err != nil {
		t.Fatal(err)
	}
	var got, want []string
	isKey := map[string]bool{}
	for _, l := range leaves() {
		isKey[l.key] = true
	}
	var walk func(string, map[string]any)
	walk = func(prefix string, section map[string]any) {
		for name, value := range section {
			if below, ok := value.(map[string]any); ok && !isKey[prefix+name] {
				walk(prefix+name+".", below)
				continue
			}
			got = append(got, prefix+name)
		}
	}
	walk("", root)
	for _, l := range leaves() {
		if l.key != "default_partner" { // for several partners, which have an example of their own
			want = append(want, l.key)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheReferenceOfKeysIsComplete(t *testing.T) {
	t.Parallel()
	var page strings.Builder
	page.WriteString("# Configuration keys\n\n" +
		"Generated from the code by `make generate`. How to write a configuration: [install.md](../install.md#configuration). A key\n" +
		"is given in the environment as `ELIGIBILITY_` and its path in upper case, levels joined by two underscores.\n")
	comments := fieldComments(t)
	defaults := config.Default()
	describe(&page, comments, "", reflect.ValueOf(defaults).Elem())
	referencetest.Compare(t, "../..", "configuration.md", page.String())
}

// describe writes a table of the keys of section and then its sections. A section
// within a section is part of its table.
func describe(page *strings.Builder, comments map[string]string, parent string, section reflect.Value) {
	for i := range section.NumField() {
		field := section.Type().Field(i)
		name := field.Tag.Get("yaml")
		if name == "-" {
			continue
		}
		key := parent + name
		text := comments[section.Type().Name()+"."+field.Name]
		text = regexp.MustCompile(`^`+field.Name+`\b`).ReplaceAllString(text, "`"+name+"`")
		value := section.Field(i)
		isSection := value.Kind() == reflect.Struct && value.Type() != reflect.TypeFor[config.Secret]()
		switch {
		case key == "partners":
			describePartners(page, comments, text, value.Index(0))
		case key == "default_partner":
			fmt.Fprintf(page, "\n## %s\n\n%s\n", key, text)
		case isSection && parent == "":
			fmt.Fprintf(page, "\n## %s\n\n%s\n\n| key | default | meaning |\n|---|---|---|\n", key, text)
		case isSection:
			fmt.Fprintf(page, "| `%s` | | %s |\n", key, text)
		default:
			byDefault := defaultText(value)
			for _, shown := range []string{strings.Trim(byDefault, "`"), "none", `""`, "[]"} {
				text = strings.TrimSuffix(text, " Optional; "+shown+".")
			}
			fmt.Fprintf(page, "| `%s` | %s | %s |\n", key, byDefault, text)
			describeEntries(page, comments, key, value)
		}
		if isSection {
			describe(page, comments, key+".", value)
		}
	}
}

// describeEntries describes the keys of each item or entry of a nested key.
func describeEntries(page *strings.Builder, comments map[string]string, key string, value reflect.Value) {
	switch kind := value.Kind(); {
	case kind == reflect.Slice && value.Type().Elem() == reflect.TypeFor[config.JWT]():
		describe(page, comments, key+"[].", reflect.ValueOf(config.DefaultJWT()))
	case kind == reflect.Slice && value.Type().Elem().Kind() == reflect.Struct:
		describe(page, comments, key+"[].", reflect.Zero(value.Type().Elem()))
	case kind == reflect.Map && value.Type().Elem() == reflect.TypeFor[config.Limit]():
		for field := range value.Type().Elem().Fields() {
			if name := field.Tag.Get("yaml"); name != "-" {
				fmt.Fprintf(page, "| `%s.NAME.%s` | that of `limits.default` | as there |\n", key, name)
			}
		}
	case kind == reflect.Map && value.Type().Elem().Kind() == reflect.Struct:
		describe(page, comments, key+".NAME.", reflect.Zero(value.Type().Elem()))
	}
}

// describePartners describes the section partner_center and those that have the
// same keys.
func describePartners(page *strings.Builder, comments map[string]string, text string, partner reflect.Value) {
	describe(page, comments, "", partner)
	fmt.Fprintf(page, "\n## partners\n\n%s\n", text)
	page.WriteString("\n## partner_defaults\n\nEvery key of `partner_center`, for the partners in `partners` that do not have it themselves: those of the file, overlaid " +
		"by those of the environment, overlaid by those of the partner in the file and then in the environment.\n")
}

func defaultText(value reflect.Value) string {
	text := fmt.Sprint(value.Interface())
	if minutes, whole := strings.CutSuffix(text, "m0s"); whole {
		text = minutes + "m"
	}
	if hours, whole := strings.CutSuffix(text, "h0m"); whole {
		text = hours + "h"
	}
	if text == "" || text == "[]" || text == "map[]" || text == "[redacted]" {
		return "–"
	}
	return "`" + text + "`"
}

// fieldComments returns the comments of this package's structs: Type.Field →
// comment in one line. Sentences about the state after Load are for programmers.
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	afterLoad := regexp.MustCompile(` ?After Load [^.]*\.`)
	comments := make(map[string]string)
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(node ast.Node) bool {
			spec, isType := node.(*ast.TypeSpec)
			if !isType {
				return true
			}
			if structure, isStruct := spec.Type.(*ast.StructType); isStruct {
				for _, field := range structure.Fields.List {
					names := field.Names
					if embedded, ok := field.Type.(*ast.Ident); ok && len(names) == 0 {
						names = []*ast.Ident{embedded}
					}
					for _, name := range names {
						text := strings.Join(strings.Fields(field.Doc.Text()), " ")
						comments[spec.Name.Name+"."+name.Name] = strings.ReplaceAll(afterLoad.ReplaceAllString(text, ""), "|", "\\|")
					}
				}
			}
			return true
		})
	}
	return comments
}
