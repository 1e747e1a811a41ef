package main

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/eligibilityd/eligibilityd/internal/eligibility"
)

// A replica of the tables has four cores and is half busy at the mean rate,
// which leaves room for the day's peak of 1.8 times the mean and for the loss
// of one replica. A node of Redis has 16 GiB, of which two thirds are data.
const (
	coresPerReplica  = 4
	busyPart         = 0.5
	redisNodeBytes   = 16 << 30
	redisFullPart    = 2.0 / 3
	ordinaryExponent = 1.0
)

// rates are checks a second.
func rates() []float64 { return []float64{1e3, 1e4, 1e5, 1e6} }

// populations are numbers of customers.
func populations() []float64 { return []float64{1e6, 1e7, 1e8} }

func tables() []table {
	return []table{
		{"costs", costTable()},
		{"hits", hitTable()},
		{"warm", warmTable()},
		{"demand", demandTable()},
		{"replicas", replicaTable()},
		{"lookups", lookUpTable()},
		{"memory", memoryTable()},
	}
}

// write makes a Markdown table: the first column is text, the others numbers.
func write(head []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(head)
	b.WriteString("|---|" + strings.Repeat(" --: |", len(head)-1) + "\n")
	for _, row := range rows {
		line(row)
	}
	return b.String()
}

func costTable() string {
	var rows [][]string
	for _, c := range costs().all() {
		rows = append(rows, []string{c.path, significant(c.micros) + " µs", c.against})
	}
	return write([]string{"path", "CPU a check", "against its floor"}, rows)
}

func hitTable() string {
	var rows [][]string
	for _, checks := range append([]float64{1, 10, 100}, rates()...) {
		row := []string{whole(checks)}
		for _, hit := range []float64{0.5, 0.9, 0.99, 0.999, 0.9999} {
			row = append(row, significant(checks*60*2*(1-hit)))
		}
		needed := 1 - publishedLimit/(checks*60*2)
		rows = append(rows, append(row, percent(max(needed, 0))))
	}
	return write([]string{"checks a second", "50 %", "90 %", "99 %", "99.9 %", "99.99 %", "needed for the limit"}, rows)
}

func warmTable() string {
	var rows [][]string
	for _, budget := range []float64{publishedLimit, 10 * publishedLimit, 100 * publishedLimit} {
		row := []string{whole(budget)}
		for _, ages := range []eligibility.Ages{eligibility.DefaultAges(), longAges()} {
			row = append(row, significant(warmCustomers(budget, ages)))
		}
		rows = append(rows, row)
	}
	return write([]string{"calls a minute", "default ages", "long ages"}, rows)
}

func demandTable() string {
	var rows [][]string
	for _, n := range populations() {
		for _, checks := range rates() {
			row := []string{millions(n) + ", " + whole(checks)}
			for _, exponent := range []float64{0.8, ordinaryExponent, 1.2} {
				d := demandOf(population(n, exponent, checks), replicasFor(checks), true, eligibility.DefaultAges())
				row = append(row, significant(d.calls*60))
				if exponent == ordinaryExponent {
					row = append(row, percent(min(1-d.waited, 0.999999)))
				}
			}
			d := demandOf(population(n, ordinaryExponent, checks), replicasFor(checks), true, longAges())
			rows = append(rows, append(row, significant(d.calls*60), percent(min(1-d.waited, 0.999999)), significant(math.Ceil(d.calls*60/publishedLimit))))
		}
	}
	return write([]string{
		"customers, checks a second", "Zipf 0.8", "Zipf 1.0", "did not wait", "Zipf 1.2", "Zipf 1.0, long ages", "did not wait", "limits",
	}, rows)
}

// replicasFor returns the replicas for a rate over gRPC if the local tier
// answers every check; at least two, so that one may fail.
func replicasFor(checks float64) float64 {
	return replicasAt(checks, costs().grpcLocal)
}

func replicasAt(checks float64, c cost) float64 {
	return max(2, math.Ceil(cores(checks, c)/(coresPerReplica*busyPart)))
}

func cores(checks float64, c cost) float64 { return checks * c.micros / 1e6 }

func replicaTable() string {
	var rows [][]string
	for _, checks := range rates() {
		row := []string{whole(checks)}
		for _, c := range costs().all() {
			row = append(row, significant(cores(checks, c)))
		}
		rows = append(rows, append(row, whole(replicasFor(checks)), whole(replicasAt(checks, costs().restRedis))))
	}
	return write([]string{
		"checks a second", "gRPC, local", "gRPC, Redis", "REST, local", "REST, Redis", "batches, local", "replicas, least", "most",
	}, rows)
}

func lookUpTable() string {
	var rows [][]string
	for _, n := range populations() {
		for _, checks := range rates() {
			ranks, replicas := population(n, ordinaryExponent, checks), replicasFor(checks)
			reads := redisReads(ranks, replicas, localMaxAge)
			atReplica := population(n, ordinaryExponent, checks/replicas)
			rows = append(rows, []string{
				millions(n) + ", " + whole(checks), whole(replicas), significant(reads), percent(reads / checks),
				significant(reads * redisMicrosPerLookUp / 1e6),
				significant(asked(atReplica, localMaxAge)), bytesOf(asked(atReplica, localMaxAge) * localBytesPerCustomer),
			})
		}
	}
	return write([]string{
		"customers, checks a second", "replicas", "look-ups a second", "of the checks", "Redis cores", "local entries", "in memory",
	}, rows)
}

func memoryTable() string {
	var rows [][]string
	for _, n := range populations() {
		row := []string{millions(n)}
		for _, checks := range rates() {
			row = append(row, bytesOf(redisBytesPerCustomer*asked(population(n, ordinaryExponent, checks), 24*time.Hour)))
		}
		all := redisBytesPerCustomer * n
		rows = append(rows, append(row, bytesOf(all), whole(math.Ceil(all/(redisNodeBytes*redisFullPart)))))
	}
	return write([]string{"customers", "1,000/s", "10,000/s", "100,000/s", "1,000,000/s", "all", "primaries for all"}, rows)
}

// significant formats a number with two digits or, if it exceeds a hundred, as
// a whole number.
func significant(n float64) string {
	if n == 0 {
		return "0"
	}
	magnitude := math.Pow(10, math.Floor(math.Log10(n))-1)
	n = math.Round(n/magnitude) * magnitude
	if n >= 10 {
		return whole(n)
	}
	return strconv.FormatFloat(n, 'g', 2, 64)
}

// whole formats a number without fraction, in groups of three digits.
func whole(n float64) string {
	digits := strconv.FormatFloat(n, 'f', 0, 64)
	for at := len(digits) - 3; at > 0; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}

// percent formats a fraction; if it is near the whole, with as many nines as it
// has.
func percent(part float64) string {
	decimals := 1
	for rest := 1 - part; rest > 0 && rest < 0.01 && decimals < 5; rest *= 10 {
		decimals++
	}
	return strconv.FormatFloat(part*100, 'f', decimals, 64) + " %"
}

func millions(n float64) string { return whole(n/1e6) + " M" }

func bytesOf(n float64) string {
	for _, unit := range []string{"B", "KiB", "MiB"} {
		if n < 1024 {
			return significant(n) + " " + unit
		}
		n /= 1024
	}
	return significant(n) + " GiB"
}
