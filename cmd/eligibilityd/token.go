package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/eligibilityd/eligibilityd/internal/access"
)

// maxTokenDays bounds the life of a static token.
const maxTokenDays = 3650

func newTokenCommand() *cobra.Command {
	var caller string
	var rights []string
	var days int
	cmd := &cobra.Command{
		Use:   "token --caller NAME --rights RIGHT,…",
		Short: "Make a static token for a caller",
		Long: `token prints a new token on standard output, and its entry for the file
auth.tokens_file on standard error. The entry has only the token's SHA-256: the
token itself is printed once and kept nowhere.

  umask 077; eligibilityd token --caller checkout --rights check >token 2>>tokens.yaml

The first entry replaces the [] of a file without tokens. A caller may have
several entries. To replace a token, add the new entry, wait 10 s until it is
read, give the caller the new token, and remove the old entry.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if days < 1 || days > maxTokenDays {
				return usageError(cmd, fmt.Errorf("--days must be 1 to %d", maxTokenDays))
			}
			token, entry, err := access.NewToken(caller, rights, time.Now().Add(time.Duration(days)*24*time.Hour))
			if err != nil {
				return usageError(cmd, err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			if err == nil {
				_, err = fmt.Fprint(cmd.ErrOrStderr(), entry)
			}
			if err != nil {
				return errors.New("the token or its entry could not be written; make another")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&caller, "caller", "", "`NAME` of the caller")
	f.StringSliceVar(&rights, "rights", nil, "the `RIGHTS` that the token gives, separated by commas: check, batch, fresh, prefetch, watch, watch_all, support")
	f.IntVar(&days, "days", 90, "how long the token is valid")
	return cmd
}
