package main

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/eligibilityd/eligibilityd/bench/load"
)

func newLoadCommand() *cobra.Command {
	var cfg load.Config
	var connections int
	cmd := &cobra.Command{
		Use:   "load FILE",
		Short: "Load the servers of a JSON file one by one, and print what they did as JSON",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			targets, err := readTargets(args[0])
			if err != nil {
				return err
			}
			encoder := json.NewEncoder(cmd.OutOrStdout())
			for _, t := range targets {
				caller, err := t.dial(connections)
				if err != nil {
					return err
				}
				one := cfg
				one.Requests, one.Processes = t.requests(), t.Processes
				result, err := load.Run(cmd.Context(), caller, one)
				if err := errors.Join(err, caller.Close()); err != nil {
					return err
				}
				if err := encoder.Encode(measured{Name: t.Name, Rounds: []load.Result{result}}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&cfg.Callers, "callers", 64, "requests under way in a closed loop")
	f.Float64Var(&cfg.Rate, "rate", 0, "requests a second of an open loop; 0 means a closed loop")
	f.DurationVar(&cfg.Warmup, "warmup", time.Second, "how long to load before measuring")
	f.DurationVar(&cfg.Duration, "duration", 5*time.Second, "how long to measure")
	f.IntVar(&connections, "connections", 4, "gRPC connections")
	return cmd
}
