package evidence

import "time"

// ObstacleKind is what keeps a [Source] from calling Partner Center. The zero value
// is none.
type ObstacleKind uint8

// The kinds of obstacle.
const (
	ObstacleNone ObstacleKind = iota
	// ObstaclePause: a host answered 429 and asked for a pause.
	ObstaclePause
	// ObstacleBudget: the budget of calls is spent.
	ObstacleBudget
	// ObstacleCircuitBreaker: the circuit breaker of a host is open.
	ObstacleCircuitBreaker
	// ObstacleCredentials: a host refuses the credentials.
	ObstacleCredentials
	// ObstacleSharedCache: the budget that the replicas share is out of reach, so that
	// this replica has its part of it only.
	ObstacleSharedCache
)

// Host is one of the hosts that a [Source] calls. The zero value is none.
type Host uint8

// The hosts.
const (
	HostNone Host = iota
	HostPartnerCenter
	HostLogin
)

// Obstacle is something that keeps a [Source] from calling Partner Center now.
type Obstacle struct {
	Kind ObstacleKind
	Host Host
	// Until is when the next call may be made; zero if that is not known.
	Until time.Time
	// Err is the error of a check that needs Partner Center now, an *Error; nil if
	// such a check only waits for longer, if at all.
	Err error
}
