package config

import (
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/eligibilityd/eligibilityd/internal/loopback"
)

const (
	// maxWebhooks bounds the webhooks, each of which has a sender in every process.
	maxWebhooks = 32
	// maxURL bounds the URL of a webhook.
	maxURL = 2048
	// The bounds of a secret in bytes, and its prefix, by Standard Webhooks.
	minWebhookSecret, maxWebhookSecret = 24, 64
	webhookSecretPrefix                = "whsec_"
	// maxWebhookSecretFile bounds a file with two secrets.
	maxWebhookSecretFile = 4 << 10
)

// checkWebhooks checks the webhooks, each value of each.
func (l *loader) checkWebhooks(command Command) {
	const key = "webhooks"
	if n := len(l.cfg.Webhooks); n > maxWebhooks {
		l.object(key, "has %d webhooks, and at most %d are supported", n, maxWebhooks)
	}
	taken := map[string]string{} // name → path of its entry
	for i, w := range l.cfg.Webhooks {
		path := key + "[" + strconv.Itoa(i) + "]"
		switch other, again := taken[w.Name]; {
		case w.Name == "":
			l.objectToEither(path+".name", path, "is missing: what commands, logs and metrics call the webhook")
		case !partnerName.MatchString(w.Name):
			l.object(path+".name", "must be 1 to 32 lower-case letters, digits and hyphens")
		case again:
			l.object(path+".name", "is the same as that of %s", other)
		default:
			taken[w.Name] = path
		}
		l.checkWebhookPartner(command, path, w.Partner)
		if w.URL == "" {
			l.objectToEither(path+".url", path, "is missing: what is called with each change")
		} else if problem := webhookURLProblem(w.URL); problem != "" {
			l.object(path+".url", "%s", problem)
		}
		if w.SecretFile == "" {
			l.objectToEither(path+".secret_file", path, "is missing: the file with the secret that signs the requests")
		} else if problem := webhookSecretProblem(w.SecretFile); problem != "" {
			l.object(path+".secret_file", "%s", problem)
		}
	}
}

// checkWebhookPartner checks the partner of the webhook at path. The partner of dev
// has a name that no configuration holds.
func (l *loader) checkWebhookPartner(command Command, path, name string) {
	_, isSeveral := l.origins[partnersSection]
	known := slices.ContainsFunc(l.partners, func(s partnerSection) bool { return s.name == name })
	switch {
	case known || command == Dev && !isSeveral:
	case name != "":
		l.object(path+".partner", "is none of the partners")
	case l.cfg.DefaultPartner == "" && len(l.partners) > 1:
		l.objectToEither(path+".partner", path, "is missing: there are several partners and no default_partner")
	}
}

// webhookURLProblem describes why a URL cannot be that of a webhook, without
// repeating it, or is "".
func webhookURLProblem(text string) string {
	u, err := url.Parse(text)
	if err != nil || !isHost(u.Hostname()) || u.Scheme != "https" && u.Scheme != "http" {
		return "must be an absolute URL, such as https://host.example/changes"
	}
	port, ok := parsePort(u.Port())
	switch {
	case strings.HasSuffix(u.Host, ":") || u.Port() != "" && (!ok || port == 0):
		return "must have a port from 1 to 65535 or none"
	case u.User != nil:
		return "must not hold a user name or password; requests are signed"
	case strings.Contains(text, "#"):
		return "must not have a fragment"
	case !isVisible(text):
		return "must not hold blanks or other than ASCII characters"
	case len(text) > maxURL:
		return "must not be longer than " + strconv.Itoa(maxURL) + " bytes"
	case u.Scheme == "http" && !loopback.IsHost(u.Hostname()):
		return "must begin with https://; http is accepted for loopback hosts only (127.0.0.0/8, ::1, localhost)"
	}
	return ""
}

func webhookSecretProblem(path string) string {
	text, problem := readText(path, maxWebhookSecretFile)
	if problem != "" {
		return problem
	}
	if _, err := ParseWebhookSecrets([]byte(text)); err != nil {
		return err.Error()
	}
	return ""
}

// ParseWebhookSecrets returns the secrets in the contents of a webhook's
// secret_file: the current one and, if there is a second line, the earlier one. Its
// errors show nothing of them.
func ParseWebhookSecrets(contents []byte) ([][]byte, error) {
	text := strings.TrimRight(strings.TrimPrefix(string(contents), bom), " \t\r\n")
	lines := strings.Split(text, "\n")
	if len(lines) > 2 {
		return nil, errors.New("holds more than two lines: the secret, and an earlier one that also signs")
	}
	secrets := make([][]byte, 0, len(lines))
	for i, line := range lines {
		secret, problem := parseWebhookSecret(strings.TrimSpace(line))
		if problem != "" {
			return nil, errors.New("line " + strconv.Itoa(i+1) + " " + problem)
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
}

func parseWebhookSecret(text string) (secret []byte, problem string) {
	encoded, ok := strings.CutPrefix(text, webhookSecretPrefix)
	if !ok {
		return nil, "does not begin with " + webhookSecretPrefix + "; make a secret with: echo whsec_$(openssl rand -base64 32)"
	}
	secret, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") { // which the decoder skips
		return nil, "is not base64 behind " + webhookSecretPrefix
	}
	if n := len(secret); n < minWebhookSecret || n > maxWebhookSecret {
		return nil, "holds a secret of " + strconv.Itoa(n) + " bytes; it must have 24 to 64"
	}
	return secret, ""
}
