// Shop shows how a web shop asks before it sells, and what its pages show: see README.md.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/eligibilityd/eligibilityd/client"
)

func main() {
	var cfg client.Config
	address := flag.String("address", "127.0.0.1:9090", "gRPC `HOST:PORT` of the service, several replicas separated by commas")
	caFile := flag.String("ca-file", "", "PEM `FILE` of the authorities to trust in place of the system's")
	tokenFile := flag.String("token-file", "", "`FILE` with the token to send")
	listen := flag.String("listen", "127.0.0.1:8000", "`HOST:PORT` of the shop")
	flag.BoolVar(&cfg.Insecure, "insecure", false, "connect in plain text")
	flag.IntVar(&cfg.Attempts, "attempts", 0, "how often a call is made at most; 0 is the client's default")
	flag.Parse()
	if err := run(*address, *caFile, *tokenFile, *listen, cfg); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

// run serves the shop until SIGINT or SIGTERM.
func run(address, caFile, tokenFile, listen string, cfg client.Config) error {
	if caFile != "" {
		authorities, err := os.ReadFile(caFile) //nolint:gosec // the user names the file
		if err != nil {
			return err
		}
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
		if !cfg.TLS.RootCAs.AppendCertsFromPEM(authorities) {
			return fmt.Errorf("%s holds no certificate in PEM", caFile)
		}
	}
	if tokenFile != "" {
		cfg.Token = client.TokenFile(tokenFile)
	}
	service, err := client.New(address, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = service.Close() }()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "the shop is open at http://%s\n", listener.Addr())
	server := &http.Server{Handler: newShop(service, os.Stdout).handler(), ReadTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.Background(), 5*time.Second) // ctx has ended
	defer cancel()
	return server.Shutdown(closing)
}
