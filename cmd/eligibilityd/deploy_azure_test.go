package main

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const azureDir = "../../deploy/azure/"

// bicepSamples are values of the expressions in main.bicep, in the form that Azure gives
// them.
var bicepSamples = map[string]string{
	"callersAudience":                            "api://eligibilityd",
	"database.properties.port":                   "10000",
	"environment().authentication.loginEndpoint": "https://login.microsoftonline.com/",
	"identity.properties.clientId":               "00000000-0000-4000-8000-000000000001",
	"partnerClientId":                            "00000000-0000-4000-8000-000000000002",
	"partnerTenantId":                            "00000000-0000-4000-8000-000000000003",
	"redis.properties.hostName":                  "eligibilityd-abc.westeurope.redis.azure.net",
	"tenant().tenantId":                          "00000000-0000-4000-8000-000000000004",
	"vault.properties.vaultUri":                  "https://kv-abc.vault.azure.net/",
}

var (
	bicepVariable = regexp.MustCompile(`\n\s*name: '([A-Z][A-Z0-9_]*)'\n\s*value: (.+)`)
	bicepInserted = regexp.MustCompile(`\$\{([^}]+)\}`)
	bicepTarget   = regexp.MustCompile(`\btargetPort: (\d+)`)
	bicepProbe    = regexp.MustCompile(`httpGet: \{\n\s*path: '([^']+)'\n\s*port: (\d+)`)
	bicepArgs     = regexp.MustCompile(`\n\s*args: \[([^\]]*)\]`)
	bicepText     = regexp.MustCompile(`'([^']*)'`)
	bicepComment  = regexp.MustCompile(`(?m)^\s*//.*\n`)
	bicepMount    = regexp.MustCompile(`volumeName: '([^']+)'\n\s*mountPath: '([^']+)'`)
	bicepFile     = regexp.MustCompile(`secretRef: '([^']+)'\n\s*path: '([^']+)'`)
)

func readBicep(t *testing.T) string {
	t.Helper()
	return bicepComment.ReplaceAllString(string(readFile(t, azureDir+"main.bicep")), "")
}

// bicepValue returns the value of an expression, as far as main.bicep has such.
func bicepValue(t *testing.T, expression string) string {
	t.Helper()
	sample := func(of string) string {
		value, ok := bicepSamples[of]
		if !ok {
			t.Errorf("bicepSamples has no value of %s", of)
		}
		return value
	}
	text, isText := strings.CutPrefix(strings.TrimSuffix(expression, "'"), "'")
	if !isText {
		return sample(expression)
	}
	return bicepInserted.ReplaceAllStringFunc(text, func(found string) string { return sample(found[2 : len(found)-1]) })
}

// bicepContainers are the uses of the binary by main.bicep.
func bicepContainers(t *testing.T) []container {
	t.Helper()
	text := readBicep(t)
	c := container{where: "Azure", environ: map[string]string{}, files: map[string]string{}}
	for _, arg := range bicepText.FindAllStringSubmatch(bicepArgs.FindString(text), -1) {
		c.args = append(c.args, arg[1])
	}
	for _, found := range bicepVariable.FindAllStringSubmatch(text, -1) {
		c.environ[found[1]] = bicepValue(t, found[2])
	}
	mount := bicepMount.FindStringSubmatch(text)
	if mount == nil {
		t.Fatal("no volume is mounted")
	}
	for _, found := range bicepFile.FindAllStringSubmatch(text, -1) {
		c.files[mount[2]+"/"+found[2]] = "00112233445566778899aabbccddeeff"
	}
	for _, found := range bicepTarget.FindAllStringSubmatch(text, -1) {
		port, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(err)
		}
		c.ports = append(c.ports, port)
	}
	for _, found := range bicepProbe.FindAllStringSubmatch(text, -1) {
		c.paths = append(c.paths, found[2]+found[1])
	}
	if len(c.environ) < 10 || len(c.ports) != 2 || len(c.paths) != 2 || len(c.args) == 0 {
		t.Errorf("main.bicep has %d variables, ports %v, probes %q, arguments %q", len(c.environ), c.ports, c.paths, c.args)
	}
	return []container{c}
}

// No Bicep compiler runs here: these are the mistakes that can be found without one.
func TestTheBicepFileRefersToWhatItDeclares(t *testing.T) {
	t.Parallel()
	text := readBicep(t)
	declared := regexp.MustCompile(`(?m)^(param|var|resource) (\w+) (.*)$`).FindAllStringSubmatch(text, -1)
	example := string(readFile(t, azureDir+"main.example.bicepparam"))
	given := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?m)^param (\w+) =`).FindAllStringSubmatch(example, -1) {
		given[found[1]] = true
	}
	version := regexp.MustCompile(`^'[\w.]+/[\w/]+@20\d\d-\d\d-\d\d' (existing )?= (if \(\w+\) )?\{$`)
	kinds := map[string]int{}
	for _, found := range declared {
		kind, name, rest := found[1], found[2], found[3]
		kinds[kind]++
		if uses := regexp.MustCompile(`\b`+name+`\b`).FindAllString(text, -1); len(uses) < 2 && kind != "resource" {
			t.Errorf("%s %s is not used", kind, name)
		}
		switch {
		case kind == "resource" && !version.MatchString(rest):
			t.Errorf("resource %s: %s", name, rest)
		case kind == "param" && !strings.Contains(rest, "=") && !given[name]:
			t.Errorf("the example gives no %s, which has no default", name)
		}
		if kind == "param" {
			delete(given, name)
		}
	}
	if len(given) > 0 || kinds["resource"] < 10 || kinds["param"] < 8 {
		t.Errorf("%v; the example gives %v, which no parameter is", kinds, given)
	}
	if open := unclosed(text); open != "" {
		t.Errorf("%s matches nothing", open)
	}
	for _, of := range []struct{ used, declared string }{
		{`secretRef: '([^']+)'`, `name: '%s'\n\s*keyVaultUrl:`},
		{`volumeName: '([^']+)'`, `name: '%s'\n\s*storageType:`},
	} {
		for _, found := range regexp.MustCompile(of.used).FindAllStringSubmatch(text, -1) {
			if !regexp.MustCompile(strings.ReplaceAll(of.declared, "%s", regexp.QuoteMeta(found[1]))).MatchString(text) {
				t.Errorf("%s names nothing", found[0])
			}
		}
	}
	for _, want := range []string{"@minValue(2)\nparam minReplicas int = 2\n", "transport: 'http2'", "accessKeysAuthentication: 'Disabled'", "enableRbacAuthorization: true", "@secure()"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
}

// unclosed returns the first bracket or quote of a Bicep file without its counterpart,
// and what follows it, or "".
func unclosed(text string) string {
	closes := map[byte]byte{'{': '}', '[': ']', '(': ')', '\'': '\''}
	var open []int
	for i := 0; i < len(text); i++ {
		at := text[i]
		top := byte(0)
		if len(open) > 0 {
			top = text[open[len(open)-1]]
		}
		switch {
		case top != 0 && at == closes[top]:
			open = open[:len(open)-1]
		case top == '\'':
			if strings.HasPrefix(text[i:], "${") { // an expression in the text
				i++
				open = append(open, i)
			}
		case closes[at] != 0:
			open = append(open, i)
		case strings.IndexByte("}])", at) >= 0:
			return text[i:min(i+40, len(text))]
		}
	}
	if len(open) > 0 {
		i := open[len(open)-1]
		return text[i:min(i+40, len(text))]
	}
	return ""
}

// The service on Azure holds no secret of Partner Center and none of Redis.
func TestTheServiceOnAzureHoldsNoSecret(t *testing.T) {
	t.Parallel()
	cfg := loadDeployed(t, bicepContainers(t)[0])
	partner, redis := cfg.Partners[0], cfg.Cache.Redis
	if !partner.ClientSecret.IsZero() || !partner.ClientCertificate.IsZero() || partner.RefreshTokenFile != "" || !redis.Password.IsZero() {
		t.Error("a secret is configured")
	}
	if partner.ClientAssertion != "managed_identity" || partner.RefreshTokenVault.Secret == "" || !redis.EntraID.Enabled || !redis.TLS.Enabled {
		t.Errorf("%q, %+v, %+v", partner.ClientAssertion, partner.RefreshTokenVault, redis.EntraID)
	}
	if len(cfg.Auth.JWT) == 0 || slices.Contains(cfg.Auth.JWT[0].Audiences, "") {
		t.Error("callers are not authenticated")
	}
}
