package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/eligibilityd/eligibilityd/internal/app"
	"github.com/eligibilityd/eligibilityd/internal/cache"
	"github.com/eligibilityd/eligibilityd/internal/config"
	"github.com/eligibilityd/eligibilityd/internal/webhooks"
)

// webhooksLimit bounds a command about webhooks.
const webhooksLimit = time.Minute

// webhooksFlags are the flags of the webhooks commands.
type webhooksFlags struct {
	config    string
	json, all bool
}

func newWebhooksCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "webhooks",
		Short: "Show the webhooks, and send their dead letters again",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newWebhooksListCommand(), newWebhooksReplayCommand())
	return cmd
}

func newWebhooksListCommand() *cobra.Command {
	var flags webhooksFlags
	cmd := &cobra.Command{
		Use:   "list [NAME]",
		Short: "Show each webhook: its state, who sends, and what is not delivered",
		Long: `list shows each webhook of the configuration as it is in Redis: the host of its URL, its
state, the process that sends, the age of the oldest change that is not delivered,
and how many changes wait and how many are dead letters. With a name it also shows
the dead letters, the oldest first. It changes nothing and calls no URL.`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withWebhooks(cmd, flags, args, func(ctx context.Context, all []webhookState) error {
				return listWebhooks(ctx, all, len(args) > 0, flags.json, cmd.OutOrStdout())
			})
		},
	}
	addWebhooksFlags(cmd, &flags)
	return cmd
}

func newWebhooksReplayCommand() *cobra.Command {
	var flags webhooksFlags
	cmd := &cobra.Command{
		Use:   "replay NAME [EVENT_ID...]",
		Short: "Send dead letters of a webhook again, and enable it",
		Long: `replay moves dead letters back to the changes that wait: those with the given event
ids, or all. The running service sends them within seconds, and tries for another
72 h. Without ids and --all it only enables a webhook that was disabled because its
URL answered 410, and ends a pause after failures.

Exit code: 1 if an event is not among the dead letters, or there is no room for it
yet, else 0.`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if flags.all && len(args) > 1 {
				return usageError(cmd, errors.New("give event ids or --all"))
			}
			return withWebhooks(cmd, flags, args[:1], func(ctx context.Context, all []webhookState) error {
				return replayWebhook(ctx, all[0], args[1:], flags, cmd.OutOrStdout())
			})
		},
	}
	addWebhooksFlags(cmd, &flags)
	cmd.Flags().BoolVar(&flags.all, "all", false, "all dead letters of the webhook")
	return cmd
}

func addWebhooksFlags(cmd *cobra.Command, flags *webhooksFlags) {
	cmd.Flags().StringVar(&flags.config, "config", "", "YAML configuration file; without one, the environment holds the whole configuration")
	cmd.Flags().BoolVar(&flags.json, "json", false, "print JSON")
}

// webhookState is a webhook of the configuration and its state in Redis.
type webhookState struct {
	config.Webhook

	store *cache.Webhooks
}

// withWebhooks calls do with the webhooks of the configuration, or the named one.
func withWebhooks(cmd *cobra.Command, flags webhooksFlags, names []string, do func(ctx context.Context, all []webhookState) error) error {
	all, closeRedis, err := openWebhooks(os.Environ(), flags.config)
	if err != nil {
		return err
	}
	defer closeRedis()
	if len(names) > 0 {
		all = slices.DeleteFunc(all, func(w webhookState) bool { return w.Name != names[0] })
		if len(all) == 0 {
			return usageError(cmd, fmt.Errorf("the configuration has no webhook %q", names[0]))
		}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), webhooksLimit)
	defer cancel()
	return do(ctx, all)
}

// openWebhooks returns the webhooks of a configuration.
func openWebhooks(environ []string, path string) (all []webhookState, closeRedis func(), err error) {
	cfg, err := config.Load(path, environ, config.Doctor)
	if err != nil {
		return nil, nil, err
	}
	if len(cfg.Cache.Redis.Addresses) == 0 {
		return nil, nil, errors.New("cache.redis.addresses is empty: the state of webhooks is in the process that sends, and its metrics show it")
	}
	client, err := cache.NewClient(app.RedisConfig(cfg))
	if err != nil {
		return nil, nil, err
	}
	closeRedis = func() { _ = client.Close() } // nothing is left to lose
	for _, webhook := range cfg.Webhooks {
		partner, _ := cfg.Partner(webhook.Partner) // config.Load has checked that there is one
		webhook.Partner = partner.Name
		store, err := cache.NewWebhooksOn(app.PartnerRedisConfig(cfg, partner), client, nil)
		if err != nil {
			closeRedis()
			return nil, nil, err
		}
		all = append(all, webhookState{Webhook: webhook, store: store})
	}
	return all, closeRedis, nil
}

// webhookReport is what list shows of a webhook.
type webhookReport struct {
	Name    string `json:"name"`
	Partner string `json:"partner"`
	Host    string `json:"host"`
	// State is delivering, backing_off, disabled or no_sender.
	State       string             `json:"state"`
	PausedUntil *time.Time         `json:"pausedUntil,omitempty"`
	Sender      string             `json:"sender"`
	LagSeconds  int64              `json:"lagSeconds"`
	Waiting     int64              `json:"waiting"`
	Dead        int64              `json:"deadLetters"`
	Dropped     int64              `json:"droppedDeadLetters"`
	Letters     []deadLetterReport `json:"letters,omitempty"`
}

type deadLetterReport struct {
	EventID    string    `json:"eventId"`
	CustomerID string    `json:"customerId"`
	Written    time.Time `json:"writeTime"`
	Attempts   int       `json:"attempts"`
	Died       time.Time `json:"deathTime"`
}

func listWebhooks(ctx context.Context, all []webhookState, withLetters, asJSON bool, out io.Writer) error {
	reports := make([]webhookReport, 0, len(all))
	for _, webhook := range all {
		report, err := webhook.report(ctx, withLetters)
		if err != nil {
			return fmt.Errorf("webhook %s: redis: %s", webhook.Name, cache.ErrorText(err))
		}
		reports = append(reports, report)
	}
	if asJSON {
		return printIndented(out, reports)
	}
	var text strings.Builder
	if len(reports) == 0 {
		text.WriteString("no webhooks are configured\n")
	}
	for _, r := range reports {
		state := strings.ReplaceAll(r.State, "_", " ")
		if r.PausedUntil != nil {
			state += " until " + r.PausedUntil.Format(time.RFC3339)
		}
		fmt.Fprintf(&text, "%s: %s, to %s, sender %s, lag %ds, %d waiting, %d dead letters", r.Name, state, r.Host, r.Sender, r.LagSeconds, r.Waiting, r.Dead)
		if r.Dropped > 0 {
			fmt.Fprintf(&text, ", %d made room", r.Dropped)
		}
		text.WriteString("\n")
		for _, letter := range r.Letters {
			fmt.Fprintf(&text, "  %s  customer %s, written %s, %d attempts\n", letter.EventID, letter.CustomerID, letter.Written.Format(time.RFC3339), letter.Attempts)
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}

func (w webhookState) report(ctx context.Context, withLetters bool) (webhookReport, error) {
	status, err := w.store.Inspect(ctx, w.Name)
	if err != nil {
		return webhookReport{}, err
	}
	now := time.Now()
	report := webhookReport{
		Name: w.Name, Partner: w.Partner, Sender: printable(status.Sender()), LagSeconds: int64(status.Lag(now) / time.Second),
		Waiting: status.Parked, Dead: status.Dead, Dropped: status.Dropped,
	}
	if u, err := url.Parse(w.URL); err == nil {
		report.Host = u.Host
	}
	var until time.Time
	report.State, until = status.Condition(w.URL, now)
	if report.State == "no_sender" {
		report.Sender = "none"
	}
	if !until.IsZero() {
		report.PausedUntil = new(until.UTC())
	}
	if !withLetters {
		return report, nil
	}
	records, err := w.store.Dead(ctx, w.Name, webhooks.MaxDead)
	for _, record := range records {
		letter, err := webhooks.ParseLetter(record.Value)
		if err != nil {
			letter = webhooks.Letter{CustomerID: "unreadable"}
		}
		report.Letters = append(report.Letters, deadLetterReport{
			EventID: printable(record.ID), CustomerID: printable(letter.CustomerID), Written: time.UnixMilli(letter.Written).UTC(), Attempts: letter.Attempts, Died: time.UnixMilli(letter.Buried).UTC(),
		})
	}
	return report, err
}

func printIndented(out io.Writer, value any) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// replayReport is the result of a replay.
type replayReport struct {
	Replayed int64 `json:"replayed"`
	// Left is how many dead letters there is no room for yet.
	Left int64 `json:"left"`
	// Missing is how many events are not among the dead letters.
	Missing int64 `json:"missing"`
}

func replayWebhook(ctx context.Context, webhook webhookState, ids []string, flags webhooksFlags, out io.Writer) error {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	moved, left, err := webhook.store.Replay(ctx, webhook.Name, ids, flags.all)
	if err != nil {
		return fmt.Errorf("redis: %s", cache.ErrorText(err))
	}
	report := replayReport{Replayed: moved, Left: left}
	if !flags.all {
		report.Missing = int64(len(ids)) - moved - left
	}
	if flags.json {
		err = printIndented(out, report)
	} else {
		err = report.print(out, flags.all || len(ids) > 0)
	}
	if err == nil && (report.Left > 0 || report.Missing > 0) {
		return &exitError{code: exitFailure}
	}
	return err
}

func (r replayReport) print(out io.Writer, asked bool) error {
	text := "the webhook is enabled and tries at once\n"
	if asked {
		text = fmt.Sprintf("%d dead letters are sent again\n", r.Replayed)
	}
	if r.Missing > 0 {
		text += fmt.Sprintf("%d events are not among the dead letters\n", r.Missing)
	}
	if r.Left > 0 {
		text += fmt.Sprintf("there is no room for %d; repeat the command when the others are sent\n", r.Left)
	}
	_, err := io.WriteString(out, text)
	return err
}
