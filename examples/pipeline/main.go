// Pipeline shows how an order pipeline parks the orders of customers whom Microsoft is
// reviewing, and places them when the review ends, without polling: see README.md.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	eligibilityv1 "github.com/eligibilityd/eligibilityd/gen/eligibility/v1"
)

func main() {
	address := flag.String("address", "127.0.0.1:9090", "gRPC `HOST:PORT` of the service")
	caFile := flag.String("ca-file", "", "PEM `FILE` of the authorities to trust; without it, the connection is in plain text")
	tokenFile := flag.String("token-file", "", "`FILE` with the token to send; needs --ca-file")
	dir := flag.String("dir", ".", "`DIRECTORY` of the journal and of the orders placed")
	orders := flag.String("orders", "-", "`FILE` of orders, one JSON object a line; - is standard input")
	flag.Parse()
	if err := run(*address, *caFile, *tokenFile, *dir, *orders); err != nil {
		fmt.Fprintln(os.Stderr, "pipeline:", err)
		os.Exit(1)
	}
}

// run returns when the input has ended and no order is open. There is no other shutdown:
// whatever the process does, it can be killed.
func run(address, caFile, tokenFile, dir, orders string) error {
	conn, err := connect(address, caFile, tokenFile)
	if err != nil {
		return err
	}
	if err := lock(dir); err != nil {
		return err
	}
	shop, err := openShop(filepath.Join(dir, "placed.jsonl"))
	if err != nil {
		return err
	}
	book, err := openBook(filepath.Join(dir, "journal.jsonl"))
	if err != nil {
		return err
	}
	in := io.Reader(os.Stdin)
	if orders != "-" {
		if in, err = os.Open(orders); err != nil { //nolint:gosec // the user names the file
			return err
		}
	}
	ctx, fail := context.WithCancelCause(context.Background())
	p := &pipeline{
		client: eligibilityv1.NewEligibilityServiceClient(conn), book: book, shop: shop,
		slots: make(chan struct{}, 8), fail: fail, out: json.NewEncoder(os.Stdout),
	}
	for _, o := range book.orders() {
		if o.State == due {
			go p.work(o)
		}
	}
	go p.intake(in)
	go p.streams(ctx)
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func connect(address, caFile, tokenFile string) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if caFile != "" {
		authorities, err := os.ReadFile(caFile) //nolint:gosec // the user names the file
		if err != nil {
			return nil, err
		}
		cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
		if !cfg.RootCAs.AppendCertsFromPEM(authorities) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", caFile)
		}
		options[0] = grpc.WithTransportCredentials(credentials.NewTLS(cfg))
	}
	if tokenFile != "" {
		options = append(options, grpc.WithPerRPCCredentials(tokenIn(tokenFile)))
	}
	return grpc.NewClient(address, options...)
}

// tokenIn is a file whose token is sent with each call, and read for each, so that it
// can be replaced.
type tokenIn string

func (f tokenIn) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := os.ReadFile(string(f))
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(token))}, err
}

func (tokenIn) RequireTransportSecurity() bool { return true }

// shop stands in for the order system, which has to take an order once for each key,
// however often it is placed. It is safe for concurrent use.
type shop struct {
	mu     sync.Mutex
	file   *file[placement]
	placed map[string]bool
}

type placement struct {
	Key        string `json:"key"`
	CustomerID string `json:"customer_id"`
}

func openShop(path string) (s *shop, err error) {
	s = &shop{placed: make(map[string]bool)}
	s.file, err = openFile(path, func(p placement) { s.placed[p.Key] = true })
	return s, err
}

func (s *shop) place(key, customerID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.placed[key] {
		return nil
	}
	s.placed[key] = true
	return s.file.append(placement{Key: key, CustomerID: customerID})
}
