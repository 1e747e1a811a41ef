//go:build !race

package eligibility_test

const defaultDecideValues = 10_000_000
