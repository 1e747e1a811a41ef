//go:build race

package eligibility_test

// defaultDecideValues is smaller under the race detector, which slows TestDecide
// down about tenfold.
const defaultDecideValues = 200_000
