package app

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/console"
	"github.com/eligibilityd/eligibilityd/internal/reload"
	"github.com/eligibilityd/eligibilityd/internal/rest"
)

// mountConsole builds the console, if the configuration enables it, and makes handler
// serve it.
func (a *App) mountConsole(handler *rest.Handler, build Build, registry *prometheus.Registry, replace Replacements) error {
	if !a.cfg.Console.Enabled {
		return nil
	}
	cfg := console.Config{
		API: handler.Client(), Stream: handler.ServeFor, DefaultPartner: a.cfg.DefaultPartner,
		Fleet:   a.newFleetReader(build, registry).read,
		Version: build.Version, Logger: a.logger.Named("console"), Now: replace.Now,
	}
	if a.decisions.log != nil {
		cfg.Asked = newAskedReader(a.cfg.DecisionLog, a.decisions.log).search
	}
	for _, partner := range a.cfg.Partners { // in the order of their names
		cfg.Partners = append(cfg.Partners, partner.Name)
	}
	if oidc := a.cfg.Console.OIDC; oidc.ClientID != "" {
		var err error
		if a.consoleSecret, err = reload.Open(reload.Config[[]byte]{
			Name: "client secret of the console", Files: []string{oidc.ClientSecretFile}, Logger: cfg.Logger,
			Parse: func(contents [][]byte) ([]byte, error) { return config.ParseClientSecret(contents[0]) },
		}); err != nil {
			return err
		}
		provider, err := a.access.OpenID(oidc.Issuer, oidc.ClientID, a.consoleSecret.Get)
		if err != nil {
			return fmt.Errorf("console.oidc: %w", err)
		}
		cfg.SignIn = &console.SignIn{Provider: provider, Secret: a.consoleSecret.Get, Registerer: registry}
	}
	pages, err := console.New(cfg)
	if err != nil {
		return err
	}
	handler.Mount(pages)
	return nil
}
