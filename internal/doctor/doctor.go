// Package doctor diagnoses a configuration and everything that the service needs:
// hosts, clock, token, Redis, listeners, their certificate, and the
// credentials of callers. It returns findings and prints nothing.
package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/eligibilityd/eligibilityd/internal/config"
)

// Verdict is the result of a check.
type Verdict string

// The verdicts.
const (
	VerdictOK      Verdict = "ok"
	VerdictWarning Verdict = "warning"
	VerdictFailure Verdict = "failure"
	VerdictSkipped Verdict = "skipped"
)

// Finding is the result of one check. It never holds a secret.
type Finding struct {
	Check string `json:"check"`
	// Partner is the partner that the check is about, if there are several.
	Partner string `json:"partner,omitempty"`

	Status Verdict `json:"status"`
	Detail string  `json:"detail"`
	Remedy string  `json:"remedy,omitempty"`
}

func ok(check, format string, args ...any) Finding {
	return Finding{Check: check, Status: VerdictOK, Detail: fmt.Sprintf(format, args...)}
}

func skipped(check, why string) Finding {
	return Finding{Check: check, Status: VerdictSkipped, Detail: why}
}

func warning(check, remedy, format string, args ...any) Finding {
	return Finding{Check: check, Status: VerdictWarning, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

func failure(check, remedy, format string, args ...any) Finding {
	return Finding{Check: check, Status: VerdictFailure, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
}

// Options are the inputs of Examine besides the environment.
type Options struct {
	// ConfigFile is the YAML configuration file; "" if the environment holds the
	// whole configuration.
	ConfigFile string
	// Customer is the customer to ask Partner Center about, a GUID; "" for none.
	Customer string
	// Roots are the authorities trusted for all hosts, and which callers of the
	// service are expected to trust; nil means the system's.
	Roots *x509.CertPool
}

// Examine runs all checks, concurrently unless they depend on each other.
// Each group ends within its limit.
func Examine(ctx context.Context, environ []string, options Options) []Finding {
	cfg, findings := checkConfiguration(environ, options.ConfigFile)
	if cfg == nil {
		return append(findings, skipped("others", "they need a configuration that can be read"))
	}
	var groups []group
	for _, partner := range cfg.Partners {
		p := patient{cfg: cfg, options: options, partner: partner}
		groups = append(groups, group{15 * time.Second, p.of(p.checkHosts)}, group{40 * time.Second, p.of(p.checkPartnerCenter)},
			group{15 * time.Second, p.of(p.checkReplicas)})
	}
	shared := patient{cfg: cfg, options: options}
	groups = append(groups, group{15 * time.Second, shared.checkRedis}, group{5 * time.Second, shared.checkListeners},
		group{5 * time.Second, shared.checkTLS},
		group{5 * time.Second, func(context.Context) []Finding { return checkDecisionLog(cfg.DecisionLog) }},
		group{15 * time.Second, shared.checkAccess})
	for _, webhook := range cfg.Webhooks {
		groups = append(groups, group{15 * time.Second, func(ctx context.Context) []Finding { return shared.checkWebhook(ctx, webhook) }})
	}
	found := make([][]Finding, len(groups))
	var checking errgroup.Group
	for i, group := range groups {
		checking.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, group.limit)
			defer cancel()
			found[i] = group.check(ctx)
			return nil
		})
	}
	_ = checking.Wait() // if a check fails, that is a finding
	for _, group := range found {
		findings = append(findings, group...)
	}
	return findings
}

// group is checks that share a limit.
type group struct {
	limit time.Duration
	check func(context.Context) []Finding
}

// patient is the configuration under examination.
type patient struct {
	cfg     *config.Config
	options Options
	partner config.Partner // if a check is about one
}

// of returns the check of p's partner. If there are several partners, its
// findings name the partner, and its keys and commands are those of the partner.
func (p patient) of(check func(context.Context) []Finding) func(context.Context) []Finding {
	if len(p.cfg.Partners) == 1 {
		return check
	}
	login := "eligibilityd login --config " + placeholder(p.options.ConfigFile)
	own := strings.NewReplacer("partner_center.", "partners."+p.partner.Name+".", "partner_center section", "section partners."+p.partner.Name,
		login, login+" --partner "+p.partner.Name)
	return func(ctx context.Context) []Finding {
		findings := check(ctx)
		for i, f := range findings {
			findings[i].Partner, findings[i].Detail, findings[i].Remedy = p.partner.Name, own.Replace(f.Detail), own.Replace(f.Remedy)
		}
		return findings
	}
}

// checkConfiguration returns the configuration, or nil if it cannot be read,
// and one finding for each fault and each missing key. It does not read the
// refresh token's file; another check does.
func checkConfiguration(environ []string, path string) (*config.Config, []Finding) {
	const check = "configuration"
	cfg, err := config.Load(path, environ, config.Doctor)
	if err == nil {
		_, err = config.Load(path, environ, config.Login)
	}
	if err == nil {
		return cfg, []Finding{ok(check, "%s", cmp.Or(path, "from the environment"))}
	}
	var findings []Finding
	for line := range strings.SplitSeq(err.Error(), "\n") {
		remedy := "correct it"
		if detail, hint, missing := strings.Cut(line, "; `eligibilityd login"); missing {
			line, remedy = detail, "set it; `eligibilityd login"+hint
		} else if detail, _, missing := strings.Cut(line, "; once it is set"); missing {
			line, remedy = detail, "set it"
		}
		findings = append(findings, failure(check, remedy, "%s", line))
	}
	return cfg, findings
}

// placeholder is the name of a configuration file in suggested commands.
func placeholder(path string) string { return cmp.Or(path, "FILE") }
