package pcclient

import "testing"

// BenchmarkDecode reads the bodies that Partner Center answers most.
func BenchmarkDecode(b *testing.B) {
	status := []byte(`{"type":"account","status":"Allowed","lastUpdateDateTime":"2026-01-02T03:04:05Z"}`)
	b.Run("status", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeValidationStatus(status); err != nil {
				b.Fatal(err)
			}
		}
	})
	held := []byte(`[{"qualification":"Education","vettingStatus":"Approved","vettingCreatedDate":"2026-01-02T03:04:05Z"},{"qualification":"StateOwnedEntity"}]`)
	b.Run("qualifications", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeQualifications(held); err != nil {
				b.Fatal(err)
			}
		}
	})
	fault := []byte(`{"code":600074,"description":"No validation status","data":[],"source":"PartnerFD"}`)
	b.Run("fault", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !decodeFault(fault).readable {
				b.Fatal("unreadable")
			}
		}
	})
}
