package main

// The memory of a customer with both facets, an Allowed account and an Approved
// qualification, with names and expiry, of a change in the feed, and of the history of one that has never changed.
// TestSizesAreAsMeasured compares these with a redis-server and the local tier.
const (
	redisBytesPerCustomer = 730
	redisBytesPerChange   = 840
	redisBytesPerHistory  = 1400 // of both facets, one entry and one confirmation each
	localBytesPerCustomer = 720
)

// announcementBytes is one announcement, without what Redis's protocol adds.
const announcementBytes = 90

// The CPU of a redis-server. BenchmarkRedisServer measures it.
const (
	redisMicrosPerLookUp = 7
	redisMicrosPerShare  = 60 // a fetch's write, and its announcement to 20 replicas
)

// cost is the server's CPU for a check on one path.
type cost struct {
	path, against string
	micros        float64
}

// costs are the figures of docs/performance.md, updated with it by hand. The
// microseconds depend on that machine and day; the ratio to the floor, measured
// in the same minutes, is comparable.
func costs() paths {
	return paths{
		grpcLocal: cost{"gRPC, local tier", "0.95 × bare grpc-go", 14.7},
		grpcRedis: cost{"gRPC, Redis", "bare grpc-go + 11 µs", 25.9},
		restLocal: cost{"REST, local tier", "1.65 × bare net/http", 21.8},
		restRedis: cost{"REST, Redis", "bare net/http + 20 µs", 33.2},
		batched:   cost{"one of a batch of 100, local tier", "7.0 × a single check for all 100", 1.01},
	}
}

// paths are the ways in which a check is answered.
type paths struct{ grpcLocal, grpcRedis, restLocal, restRedis, batched cost }

func (p paths) all() []cost {
	return []cost{p.grpcLocal, p.grpcRedis, p.restLocal, p.restRedis, p.batched}
}
