package load

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// clockTick is the unit of times in /proc: USER_HZ, 100 a second wherever
// Linux runs today.
const clockTick = 10 * time.Millisecond

// The fields of /proc/PID/stat that are used, counted from the state, which
// follows the name in parentheses.
// https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
const (
	statUser   = 11
	statSystem = 12
	statRSS    = 21
)

// usage is the CPU time and memory of processes.
type usage struct {
	cpu      time.Duration
	rssBytes int64
}

// usageOf sums /proc/PID/stat over the processes.
func usageOf(pids []int) (usage, error) {
	var sum usage
	for _, pid := range pids {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return usage{}, fmt.Errorf("load: usage of the server: %w", err)
		}
		// The name itself may hold blanks and parentheses.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		var numbers [3]int64
		for i, field := range []int{statUser, statSystem, statRSS} {
			if len(fields) <= field {
				return usage{}, fmt.Errorf("load: usage of process %d: too few fields", pid)
			}
			if numbers[i], err = strconv.ParseInt(string(fields[field]), 10, 64); err != nil {
				return usage{}, fmt.Errorf("load: usage of process %d: %w", pid, err)
			}
		}
		sum.cpu += time.Duration(numbers[0]+numbers[1]) * clockTick
		sum.rssBytes += numbers[2] * int64(os.Getpagesize())
	}
	return sum, nil
}

// RSS returns the bytes of memory that a process holds.
func RSS(pid int) (int64, error) {
	now, err := usageOf([]int{pid})
	return now.rssBytes, err
}

// Peak returns the most bytes of memory that a process has held so far.
func Peak(pid int) (int64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, fmt.Errorf("load: peak of memory: %w", err)
	}
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte("VmHWM:")); ok {
			kib, err := strconv.ParseInt(string(bytes.TrimSuffix(bytes.TrimSpace(value), []byte(" kB"))), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("load: peak of memory: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("load: process %d has no peak of memory", pid)
}
