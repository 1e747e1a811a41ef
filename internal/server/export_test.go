package server

import (
	"time"
)

// FirstMessageTimeout is how long a stream may be open without a message.
const FirstMessageTimeout = firstMessageTimeout

// Waiting returns how many streams are open without a message.
func (s *Server) Waiting() int { return s.awaited.waiting() }

// Sweep ends the streams that have waited too long in so many seconds from now.
func (s *Server) Sweep(after time.Duration) {
	s.awaited.sweep(s.awaited.second.Load() + int64(after/time.Second))
}

// Stopping reports whether the server is stopping or has stopped.
func (s *Server) Stopping() bool { return s.state.Load() == stateStopping }

// Complain logs what an HTTP server complains about.
func (s *Server) Complain(complaint string) { s.http.ErrorLog.Print(complaint) }
